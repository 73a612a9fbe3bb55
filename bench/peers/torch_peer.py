"""PyTorch on a workload of bench/workloads.ts; prints a line of JSON as bench/run.ts does.

    python3 bench/peers/torch_peer.py OP cpu|cuda [fp32|tf32|bf16] [compile] [channels_last]

fp32 keeps TF32 off, which is what an engine without tensor cores can be compared with.
"""

import json
import math
import re
import resource
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

SAMPLES, SLICE_MS = 7, 300
# Numbers that a text encoder says of a token, and tokens.
TEXT, TOKENS = 768, 77

op, device = sys.argv[1:3]
options = sys.argv[3:]
if device == "cpu":
    torch.set_num_threads(len(__import__("os").sched_getaffinity(0)))
torch.manual_seed(0)
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = "tf32" in options
torch.backends.cudnn.benchmark = True
autocast = torch.autocast(device, torch.bfloat16, enabled="bf16" in options)
layout = (
    torch.channels_last
    if "channels_last" in options or device == "cuda"
    else torch.contiguous_format
)


def randn(*shape, grad=False):
    x = torch.randn(*shape, device=device)
    if x.dim() == 4:
        x = x.contiguous(memory_format=layout)
    return x.requires_grad_(grad)


class Residual(nn.Module):
    def __init__(self, channels, out, time, groups):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups, channels), nn.Conv2d(channels, out, 3, padding=1)
        self.time = nn.Linear(time, out)
        self.norm2, self.conv2 = nn.GroupNorm(groups, out), nn.Conv2d(out, out, 3, padding=1)
        self.shortcut = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x, t):
        h = self.conv1(F.silu(self.norm1(x))) + self.time(F.silu(t))[:, :, None, None]
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class Attention(nn.Module):
    def __init__(self, channels, groups):
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in range(3))
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x, _):
        b, c, h, w = x.shape
        n = self.norm(x)
        q, k, v = (f(n).reshape(b, c, h * w).transpose(1, 2) for f in self.qkv)
        y = attend(q, k, v).transpose(1, 2).reshape(b, c, h, w)
        return x + self.out(y)


class Resample(nn.Module):
    def __init__(self, channels, up):
        super().__init__()
        self.up, self.conv = up, nn.Conv2d(channels, channels, 3, stride=1 if up else 2, padding=1)

    def forward(self, x, _):
        return self.conv(F.interpolate(x, scale_factor=2.0) if self.up else x)


def down_and_up(net, x, run):
    """What a UNet makes of x, given how its parts are run."""
    x = net.first(x)
    skips = [x]
    for parts in net.down:
        for part in parts:
            x = run(part, x)
        skips.append(x)
    for part in net.middle:
        x = run(part, x)
    for parts in net.up:
        if isinstance(parts[0], Residual):
            x = torch.cat([x, skips.pop()], 1)
        for part in parts:
            x = run(part, x)
    return net.last(F.silu(net.norm(x)))


class UNet(nn.Module):
    """The network of Ho et al. 2020 for images of 32 x 32."""

    def __init__(self, images, base, multipliers, blocks, attention, groups):
        super().__init__()
        time, channels, side, skips = 4 * base, base, 32, [base]
        self.base = base
        self.embed = nn.Sequential(nn.Linear(base, time), nn.SiLU(), nn.Linear(time, time))
        self.first = nn.Conv2d(images, base, 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()

        def block(inner, out):
            parts = [Residual(inner, out, time, groups)]
            return nn.ModuleList(parts + ([Attention(out, groups)] if side == attention else []))

        for level, m in enumerate(multipliers):
            for _ in range(blocks):
                self.down.append(block(channels, base * m))
                channels = base * m
                skips.append(channels)
            if level < len(multipliers) - 1:
                self.down.append(nn.ModuleList([Resample(channels, up=False)]))
                skips.append(channels)
                side //= 2
        self.middle = nn.ModuleList(
            [
                Residual(channels, channels, time, groups),
                Attention(channels, groups),
                Residual(channels, channels, time, groups),
            ]
        )
        for level, m in reversed(list(enumerate(multipliers))):
            for _ in range(blocks + 1):
                self.up.append(block(channels + skips.pop(), base * m))
                channels = base * m
            if level:
                self.up.append(nn.ModuleList([Resample(channels, up=True)]))
                side *= 2
        self.norm, self.last = nn.GroupNorm(groups, channels), nn.Conv2d(channels, images, 3, padding=1)

    def forward(self, x, t):
        half = self.base // 2
        steps = torch.arange(half, dtype=torch.float32, device=x.device)
        angles = t[:, None] * torch.exp(steps * (-math.log(10000.0) / (half - 1)))
        t = self.embed(torch.cat([angles.sin(), angles.cos()], 1))
        return down_and_up(self, x, lambda part, x: part(x, t))


class Transformer(nn.Module):
    """Attention of the pixels of an image to themselves and to a text, and a gated layer."""

    def __init__(self, channels):
        super().__init__()
        dense = lambda width, bias=False: nn.Linear(width, channels, bias)
        self.norm, self.first = nn.GroupNorm(32, channels, 1e-6), nn.Conv2d(channels, channels, 1)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(3))
        self.heads = nn.ModuleList(
            nn.ModuleList([dense(channels), dense(to), dense(to), dense(channels, True)])
            for to in (channels, TEXT)
        )
        self.gated, self.narrow = nn.Linear(channels, 8 * channels), dense(4 * channels, True)
        self.last = nn.Conv2d(channels, channels, 1)

    def attend(self, parts, x, to):
        q, k, v, out = parts
        split = lambda y: y.unflatten(2, (8, -1)).transpose(1, 2)
        y = attend(*map(split, (q(x), k(to), v(to))))
        return out(y.transpose(1, 2).flatten(2))

    def forward(self, image, text):
        x = self.first(self.norm(image)).flatten(2).transpose(1, 2)
        tokens = self.norms[0](x)
        x = x + self.attend(self.heads[0], tokens, tokens)
        x = x + self.attend(self.heads[1], self.norms[1](x), text)
        value, gate = self.gated(self.norms[2](x)).chunk(2, dim=-1)
        x = x + self.narrow(value * F.gelu(gate))
        return image + self.last(x.transpose(1, 2).unflatten(2, image.shape[2:]))


class LatentUNet(nn.Module):
    """A UNet with the sizes of Stable Diffusion 1.5, without the embedding of the time."""

    def __init__(self):
        super().__init__()
        widths, channels, skips = (320, 640, 1280, 1280), 320, [320]
        self.first = nn.Conv2d(4, channels, 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()

        def block(inner, out, reads):
            parts = [Residual(inner, out, 1280, 32)]
            return nn.ModuleList(parts + ([Transformer(out)] if reads else []))

        for level, width in enumerate(widths):
            for _ in range(2):
                self.down.append(block(channels, width, level < 3))
                channels = width
                skips.append(channels)
            if level < 3:
                self.down.append(nn.ModuleList([Resample(channels, up=False)]))
                skips.append(channels)
        self.middle = nn.ModuleList([*block(channels, channels, True), *block(channels, channels, False)])
        for level, width in enumerate(reversed(widths)):
            for _ in range(3):
                self.up.append(block(channels + skips.pop(), width, level > 0))
                channels = width
            if level < 3:
                self.up.append(nn.ModuleList([Resample(channels, up=True)]))
        self.norm, self.last = nn.GroupNorm(32, channels), nn.Conv2d(channels, 4, 3, padding=1)

    def forward(self, x, time, text):
        told = lambda part: text if isinstance(part, Transformer) else time
        return down_and_up(self, x, lambda part, x: part(x, told(part)))


NETWORKS = {
    "small": (1, 32, (1, 2, 2), 1, 8, 8),
    "cifar": (3, 128, (1, 2, 2, 2), 2, 16, 32),
}


def attend(q, k, v):
    return torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, -1) @ v


def compiled(f):
    return torch.compile(f) if "compile" in options else f


def gradients(f, inputs, shape):
    """Runs f forward and backward."""
    inputs = [x.requires_grad_() for x in inputs]
    f, g = compiled(f), randn(*shape)
    return lambda: torch.autograd.grad(f(*inputs), inputs, g)


def without_gradient(f, *inputs):
    f = compiled(f)
    return torch.no_grad()(lambda: f(*inputs))


def convolution(way, b, c, side, k):
    x, w, g = randn(b, c, side, side), randn(k, c, 3, 3), randn(b, k, side, side)
    flops = 2 * b * side * side * c * k * 9
    conv = lambda x, w: F.conv2d(x, w, padding=1)
    if way == "conv":
        return without_gradient(conv, x, w), flops
    if way == "convfb":
        return gradients(conv, [x, w], g.shape), 3 * flops
    mask = [way == "convdx", way == "convdw", False]
    arguments = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1, mask)
    return lambda: torch.ops.aten.convolution_backward(g, x, w, None, *arguments), flops


def group_norm(backward, b, c, side):
    x, scale, shift = randn(b, c, side, side), randn(c), randn(c)
    f = lambda x, scale, shift: F.silu(F.group_norm(x, 8, scale, shift))
    inputs = [x, scale, shift]
    return (gradients(f, inputs, x.shape) if backward else without_gradient(f, *inputs)), 0


def attention(backward, b, n, c):
    inputs, flops = [randn(b, n, c) for _ in range(3)], 4 * b * n * n * c
    if backward:
        return gradients(attend, inputs, (b, n, c)), 3 * flops
    return without_gradient(attend, *inputs), flops


def heads(b, h, queries, keys, size):
    q, k, v = randn(b, queries, h * size), randn(b, keys, h * size), randn(b, keys, h * size)
    split = lambda x: x.view(b, -1, h, size).transpose(1, 2).reshape(b * h, -1, size)

    def f(q, k, v):
        y = attend(split(q), split(k), split(v))
        return y.view(b, h, queries, size).transpose(1, 2).reshape(b, queries, h * size)

    return without_gradient(f, q, k, v), 4 * b * h * queries * keys * size


def linear(rows, channels, out):
    x, w, bias = randn(rows, channels), randn(out, channels), randn(out)
    return without_gradient(F.linear, x, w, bias), 2 * rows * channels * out


def layer_norm(rows, channels):
    x, scale, shift = randn(rows, channels), randn(channels), randn(channels)
    f = lambda x, scale, shift: F.layer_norm(x, (channels,), scale, shift)
    return without_gradient(f, x, scale, shift), 0


def geglu(rows, channels):
    def f(x):
        value, gate = x.chunk(2, dim=-1)
        return value * F.gelu(gate)

    return without_gradient(f, randn(rows, 2 * channels)), 0


def network(mode, name, batch):
    configuration = NETWORKS[name]
    model = UNet(*configuration).to(device, memory_format=layout)
    net = compiled(model)
    x, noise = randn(batch, configuration[0], 32, 32), randn(batch, configuration[0], 32, 32)
    t = torch.randint(0, 1000, (batch,), device=device).float()
    if mode == "sample":

        def sample():
            nonlocal x
            with autocast:
                x = x - 0.01 * net(x, t)

        return torch.no_grad()(sample)
    fused = {"fused": True} if device == "cuda" else {}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0, **fused)
    average = [p.detach().clone() for p in model.parameters()]

    def train():
        optimizer.zero_grad(set_to_none=True)
        with autocast:
            loss = F.mse_loss(net(x, t), noise)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_mul_(average, 0.999)
            torch._foreach_add_(average, list(model.parameters()), alpha=0.001)

    return train


def latent_unet(batch, side):
    net = compiled(LatentUNet().to(device, memory_format=layout))
    inputs = randn(batch, 4, side, side), randn(batch, 1280), randn(batch, TOKENS, TEXT)
    return torch.no_grad()(lambda: net(*inputs))


def workload():
    """What to run, and its floating point operations."""
    words = op.split("_")
    step = re.fullmatch(r"(train|sample)_(\w+)_b(\d+)", op)
    if step:
        return network(step[1], step[2], int(step[3])), 0
    numbers = [int(w) for w in words if w.isdigit()]
    if op.startswith("latent_unet_f32"):
        return latent_unet(*numbers), 0
    if op.startswith("mm"):
        n = int(op[2:])
        return without_gradient(torch.matmul, randn(n, n), randn(n, n)), 2 * n**3
    if words[0].startswith("conv"):
        return convolution(words[0], *numbers)
    if words[0] == "gnsilu":
        return group_norm("fb" in words, *numbers)
    if words[0] == "attn":
        return attention("fb" in words, *numbers)
    others = {"heads": heads, "linear": linear, "ln": layer_norm, "geglu": geglu}
    if words[0] in others:
        return others[words[0]](*numbers)
    return None, 0


def wait():
    if device == "cuda":
        torch.cuda.synchronize()


def measure(run, times):
    start = time.perf_counter()
    for _ in range(times):
        run()
    wait()
    return (time.perf_counter() - start) * 1e3 / times


run, flops = workload()
if run is None:
    sys.exit(f"{op} is no workload here")
first = measure(run, 1)
times = 1
while (ms := measure(run, times)) * times < SLICE_MS and times < 4096:
    times = min(4096, math.ceil(SLICE_MS / ms))
print(
    json.dumps(
        {
            "peer": "-".join(["torch", device, *options]),
            "op": op,
            "ms": [measure(run, times) for _ in range(SAMPLES if first < 5000 else 2)],
            "first": first,
            "flops": flops,
            "rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            "device": torch.cuda.get_device_name() if device == "cuda" else "CPU",
        }
    )
)
