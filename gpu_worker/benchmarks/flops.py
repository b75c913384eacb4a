"""How much arithmetic the networks are, in closed form: the yardstick of measurements (performance.md, 1.3).

One multiplication with its addition counts as two. Sizes are those of the padded picture: multiples of 16.
"""

from __future__ import annotations

from gpu_worker.models.dit import DiTConfig
from gpu_worker.models.layers import SwiGLU
from gpu_worker.models.windows import Grid, partition


def block_weights(config: DiTConfig) -> int:
    """K: multiplications per token and block, which is the number of weights that a token meets."""
    inner = config.heads * config.head_dim
    if config.swiglu:
        mlp = 3 * SwiGLU.hidden_dim(config.dim, config.expand_ratio)
    else:
        mlp = 2 * config.expand_ratio * config.dim
    return config.dim * (4 * inner + mlp)


def attention_flops(config: DiTConfig, grid: Grid, num_text: int) -> int:
    """Scores and weighted sums of all windows in all blocks."""
    total = 0
    for layer in range(config.num_layers):
        windows = partition(grid, config.window, shifted=layer in config.shifted_layers)
        inner = config.heads * config.head_dim
        total += sum(4 * (window.num_tokens + num_text) ** 2 * inner for window in windows)
    return total


def dit_flops(config: DiTConfig, grid: Grid, num_text: int = 58) -> int:
    """The blocks of the transformer for one clip: token grid (T, H, W), text tokens of the prompt."""
    tokens = grid[0] * grid[1] * grid[2]
    linear = 2 * block_weights(config) * (tokens + num_text) * config.num_layers
    return linear + attention_flops(config, grid, num_text)


def dit_saved_flops(config: DiTConfig, num_text: int = 58) -> int:
    """What we leave out: output projection and MLP of the last block's text, which nobody reads."""
    inner = config.heads * config.head_dim
    return 2 * num_text * (block_weights(config) - 3 * config.dim * inner)


def dit_edge_flops(config: DiTConfig, grid: Grid) -> int:
    """The projections into and out of the blocks; prompt and timestep are computed once, not per call."""
    cell = config.patch_size[1] * config.patch_size[2]
    tokens = grid[0] * grid[1] * grid[2]
    return 2 * tokens * config.dim * cell * (config.vid_in_channels + config.vid_out_channels)


def mid_attention_flops(width: int, height: int, num_latents: int) -> float:
    """The VAE's attention, once in each direction."""
    positions = width * height / 64
    return num_latents * (4 * positions**2 * 512 + 8 * positions * 512 * 512)


def encode_flops(width: int, height: int, num_frames: int) -> float:
    """Encoding `num_frames` = 4n + 1 frames."""
    pixels, latents = width * height, (num_frames - 1) // 4 + 1
    return pixels * (12.09e6 + 8.915e6 * (num_frames - 1)) + mid_attention_flops(width, height, latents)


def decode_flops(width: int, height: int, num_frames: int, *, merged: bool) -> float:
    """Decoding; merged upsamplers pay from the sixth frame on."""
    pixels, latents = width * height, (num_frames - 1) // 4 + 1
    start = min(num_frames - 1, 4)
    rest = num_frames - 1 - start
    per_frame = 18.500e6 if merged else 23.546e6
    convolutions = pixels * (28.48e6 + 23.546e6 * start + per_frame * rest)
    return convolutions + mid_attention_flops(width, height, latents)


def image_flops(width: int, height: int) -> tuple[float, float]:
    """Encoding and decoding one image with its kernels folded to two dimensions, upsamplers not merged."""
    attention = mid_attention_flops(width, height, 1)
    return width * height * 4.10e6 + attention, width * height * 9.89e6 + attention
