"""A line for every number that ``measures`` gives."""

ASIDE = ("_se", "_residual", "_converged")  # ends of names that only tell of another number

MEANING = {
    "lambda_1": "largest eigenvalue of the Hessian; ± of eigenvalues: some one is as near",
    "lambda_2": "the next one",
    "lambda_3": "the one after",
    "lambda_min": "smallest eigenvalue; negative: a way down",
    "trace": "sum of all eigenvalues",
    "frobenius": "root of the sum of their squares",
    "effective_rank": "trace^2 / frobenius^2: how many eigenvalues matter",
    "sam_gap": "rise of the loss at SAM's step of length rho",
    "worst_case": "largest rise found within rho",
    "average_case": "mean rise in random directions of length rho",
    "adaptive_lambda_1": "largest eigenvalue in units of each weight; no rescaling changes it",
    "m_sharpness_1": "mean rise of single examples at a SAM step of their own",
    "m_sharpness_16": "the same of groups of 16",
    "m_sharpness_128": "the same of groups of 128",
    "a": "largest eigenvalue of the mean Gauss-Newton matrix (Hessian, for tasks without outputs)",
    "s2": "non-uniformity: how unlike each other examples bend the loss",
    "s3": "the same by third moments; of Gauss-Newton, the other end is no lower than -a^3",
    "s3_low": "cube root of the other end of the spectrum",
    "s4": "the same by fourth moments",
    "largest_stable_rate_sgd": "up to it SGD, batch 1, stays at this minimum; one example decides",
    "largest_stable_rate_sam": "the same for unnormalized SAM at rho",
    "rate_used": "the run's learning rate, before its schedule",
    "safe_rate": "lower bound: usam (or SGD) at the run's radius is stable up to it, all batches",
    "mean_rate": "rate times largest eigenvalue of E[K] there; beyond 2 the mean grows",
    "excess": "by how much condition (5) is exceeded there, at most; 0 up to the safe rate",
    "stable": "usam (or SGD), all batches: 1 stable, -1 mean square grows, 0 cannot tell",
    "noise_trace": "mean squared distance of an example's gradient from the mean",
    "noise_frobenius": "Frobenius norm of the gradients' covariance",
    "noise_curvature": "trace of covariance times Hessian",
    "alignment": "cosine of covariance and Hessian",
    "batch_sharpness": "curvature along gradients of batches; plain SGD drives it to 2 / rate",
    "negative_share": "share of eigenvalues below -0.01 of the largest",
    "trace_cubed": "sum of cubed eigenvalues",
    "trace_fourth": "sum of their fourth powers",
    "activation_stability": "share of ReLUs on or off as at initialization; near 1: linearized",
    "active_share": "share of ReLUs that are on",
    "feature_rank": "how many directions the last layer's inputs span, weighed by their entropy",
    "feature_components": "principal components that hold 99 % of their variance",
    "beta_hat": "largest change of the gradient for a unit of way, along the last epoch's step",
    "alpha_hat": "least squared gradient for a unit of loss, along the same",
    "worst_case_linf": "largest rise found in the cube whose corners are rho away",
    "adaptive_sam_gap": "rise at ASAM's step, each weight by its size, of radius 10 rho",
    "adaptive_worst_case": "largest rise found within it; no rescaling of ReLU layers changes it",
    "adaptive_worst_case_linf": "the same where no weight changes by more than its share",
    "adaptive_average_case": "mean rise in random directions of that radius",
    "normalized_worst_case": "as adaptive_worst_case, of logits of unit length",
    "normalized_worst_case_linf": "as adaptive_worst_case_linf, of logits of unit length",
}

INFINITE = {
    "largest_stable_rate": "nothing bends",
    "safe_rate": "nothing bends",
    "alpha_hat": "the loss is at its least",
}


def infinite(name: str) -> str:
    """Why a number is infinite, where that is known."""
    return next((words for start, words in INFINITE.items() if name.startswith(start)), "")


def meaning(name: str) -> str:
    """A line for a number."""
    first, _, layer = name.partition("/")
    return f"that of the block of {layer} alone" if layer else MEANING[first]
