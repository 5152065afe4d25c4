from functools import partial

import flax.linen as nn

Conv = partial(nn.Conv, use_bias=False)
