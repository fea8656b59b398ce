"""Kernels that a hypernetwork generates: `control-plane/forge/src/supernet/generator.rs` in PyTorch, for darts_step.py."""

import math

import torch
import torch.nn.functional as F
from torch import nn

CODE, HIDDEN, LARGEST = 16, 32, 5
# Of the output channels of a kernel, the first ones.
SHARE = 0.5


class Generator(nn.Module):
    """From the code of a kernel to its values; one for all kernels."""

    def __init__(self, channels):
        super().__init__()
        self.code = nn.Linear(CODE, HIDDEN)
        # What stands for an output and for an input channel of any kernel.
        self.outputs = nn.Parameter(torch.zeros(2 * channels, HIDDEN))
        self.inputs = nn.Parameter(torch.zeros(channels, HIDDEN))
        self.taps = nn.Parameter(torch.zeros(HIDDEN, LARGEST * LARGEST))

    def forward(self, code, channels_out, channels_in, kernel):
        of_outputs = self.outputs[:channels_out] + self.code(code)
        hidden = F.relu(of_outputs.unsqueeze(1) + self.inputs[:channels_in])
        middle = slice((LARGEST - kernel) // 2, (LARGEST + kernel) // 2)
        taps = self.taps.view(HIDDEN, LARGEST, LARGEST)[:, middle, middle].reshape(HIDDEN, -1)
        values = (hidden @ taps) * math.sqrt(2 / (channels_in * kernel * kernel))
        return values.view(channels_out, channels_in, kernel, kernel)

    def embeddings(self):
        """Parameters that weight decay leaves alone, as it does scales and shifts."""
        return [self.outputs, self.inputs]

    def named_as_ours(self):
        parts = {"code": self.code.weight, "bias": self.code.bias}
        parts.update(outputs=self.outputs, inputs=self.inputs, taps=self.taps)
        return {f"generator.{part}": parameter for part, parameter in parts.items()}


class GeneratedConv2d(nn.Module):
    """A convolution without bias; the first output channels of its kernel are generated, `weight` holds the others."""

    def __init__(self, generator, channels_in, channels_out, kernel, groups=1):
        super().__init__()
        self.generator, self.groups, self.generated = generator, groups, round(channels_out * SHARE)
        self.code = nn.Parameter(torch.zeros(CODE))
        own = channels_out - self.generated
        self.weight = nn.Parameter(torch.zeros(own, channels_in // groups, kernel, kernel))

    def forward(self, x):
        _, channels_in, kernel, _ = self.weight.shape
        made = self.generator(self.code, self.generated, channels_in, kernel)
        return F.conv2d(x, torch.cat([made, self.weight]), padding=kernel // 2, groups=self.groups)
