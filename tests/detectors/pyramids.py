"""Features, variables and layers in NumPy for tests of necks, all float64."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from tinyjax import models

S1_CHANNELS = (16, 16, 32, 64)  # of mobilenetv3/s-1 at strides 4, 8, 16, 32
B2_CHANNELS = (16, 24, 56, 152)  # of efficientnet/b-2


def feature_shapes(size, channels, batch=1):
    """{stride: (B, h, w, c)} of strides 4, 8, .. for images of `size`."""
    return {
        4 * 2**i: (batch, *(-(-side // (4 * 2**i)) for side in size), c)
        for i, c in enumerate(channels)
    }


def random_features(size, channels, batch=1):
    random = np.random.default_rng(0)
    shapes = feature_shapes(size, channels, batch)
    return {stride: random.normal(size=shape) for stride, shape in shapes.items()}


def variable_shapes(neck, shapes):
    """Shapes of the parameters and of the running statistics, by path."""

    def init():
        features = {stride: jnp.zeros(shape) for stride, shape in shapes.items()}
        return nn.unbox(neck.init(jax.random.key(0), features, train=False))

    variables = jax.eval_shape(init)
    return tuple(
        {path: leaf.shape for path, leaf in flatten_dict(variables.get(name, {}), sep="/").items()}
        for name in ("params", "stats")
    )


def random_variables(neck, features, seed=0):
    """Parameters and running statistics that keep activations near 1."""
    random = np.random.default_rng(seed)

    def draw(path, shape):
        if path.endswith("kernel"):
            return random.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))
        if path.endswith(("scale", "var", "weights")):
            return random.uniform(0.5, 1.5, shape)
        return random.normal(size=shape) / 10

    shapes = variable_shapes(neck, {stride: x.shape for stride, x in features.items()})
    return tuple({path: draw(path, shape) for path, shape in tree.items()} for tree in shapes)


def outputs(neck, params, stats, features, train=False):
    """The levels of a neck, computed in float64."""
    with jax.enable_x64(True):
        apply = jax.jit(lambda *args: models.apply(neck, *args, train=train)[0])
        return {stride: np.asarray(y) for stride, y in apply(params, stats, features).items()}


# ---- layers in NumPy


def conv(x, kernel, bias=0.0):
    """Convolution with zero padding; a kernel [k, k, 1, C] is depthwise."""
    half, (_, h, w, c) = kernel.shape[0] // 2, x.shape
    padded = np.pad(x, ((0, 0), (half, half), (half, half), (0, 0)))
    is_depthwise = kernel.shape[2] == 1 != c
    y = bias
    for i, j in np.ndindex(kernel.shape[:2]):
        tap = padded[:, i : i + h, j : j + w]
        y = y + (tap * kernel[i, j] if is_depthwise else tap @ kernel[i, j])
    return y


class NumpyLayers:
    """Layers of a neck in evaluation mode, by path."""

    def __init__(self, params, stats):
        self.params, self.stats = params, stats

    def batch_norm(self, x, path):
        scale, bias = self.params[f"{path}/scale"], self.params[f"{path}/bias"]
        mean, var = self.stats[f"{path}/mean"], self.stats[f"{path}/var"]
        return (x - mean) / np.sqrt(var + 1e-5) * scale + bias

    def conv_bn(self, x, path):
        return self.batch_norm(conv(x, self.params[f"{path}/kernel"]), f"{path}/bn")

    def separable(self, x, path):
        depthwise = conv(x, self.params[f"{path}/depthwise/kernel"])
        return self.conv_bn(depthwise, f"{path}/pointwise")

    def laterals(self, features):
        return [self.conv_bn(x, f"lateral{stride}") for stride, x in sorted(features.items())]


def enlarge(x, factor, like):
    """Repeat rows and columns, and crop to the size of `like`."""
    return x.repeat(factor, 1).repeat(factor, 2)[:, : like.shape[1], : like.shape[2]]


def window_max(x, size, stride, before=0):
    """Maximum over windows; the first one starts `before` pixels outside of the map."""
    _, height, width, _ = x.shape
    rows = [slice(max(0, i - before), i - before + size) for i in range(0, height, stride)]
    columns = [slice(max(0, j - before), j - before + size) for j in range(0, width, stride)]
    return np.stack([np.stack([x[:, r, c].max((1, 2)) for c in columns], 1) for r in rows], 1)
