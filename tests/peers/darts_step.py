"""The step of `edgewright-forge bench-step` in PyTorch eager.

darts_step.py VARIANT THREADS, VARIANT one of default, channels_last, restructured. One JSON object a line on standard
input, {"run": N}; the answer is a line with a list of N milliseconds, one a step.

The step is the one that `control-plane/forge/src/bench_step.rs` describes, number by number. All variants compute the same
loss and the same gradients; they differ in how:

- default: operation by operation, tensors in PyTorch's default layout;
- channels_last: the same, tensors and weights channels last;
- restructured: channels last, and less memory traffic, as `forge::supernet` computes it.
"""

import functools
import json
import operator
import sys
import time
import warnings

warnings.filterwarnings("ignore", message="Failed to initialize NumPy")

import torch
import torch.nn.functional as F
from torch import nn

BATCH, SIZE, CHANNELS, CLASSES, NODES, FAN_IN = 64, 28, 16, 10, 4, 2
CONV, SEP, MAX, AVERAGE, SKIP, ZERO = range(6)
EDGES = [(start, node) for node in range(2, NODES + 2) for start in range(node - FAN_IN, node)]


def conv_bn(channels_in, channels_out, kernel):
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(channels_out, track_running_stats=False),
    )


class Edge(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = conv_bn(CHANNELS, CHANNELS, 3)
        self.depthwise = nn.Conv2d(CHANNELS, CHANNELS, 5, padding=2, groups=CHANNELS, bias=False)
        self.pointwise = conv_bn(CHANNELS, CHANNELS, 1)

    def operations(self, x):
        return [
            self.conv(x),
            self.pointwise(self.depthwise(x)),
            F.max_pool2d(x, 3, 1, 1),
            F.avg_pool2d(x, 3, 1, 1),
            x,
            torch.zeros_like(x),
        ]


class Network(nn.Module):
    def __init__(self, restructured):
        super().__init__()
        self.restructured = restructured
        self.stem = conv_bn(1, CHANNELS, 3)
        self.adapters = nn.ModuleList(conv_bn(CHANNELS, CHANNELS, 1) for _ in range(2))
        self.edges = nn.ModuleList(Edge() for _ in EDGES)
        self.head = nn.Linear(NODES * CHANNELS, CLASSES)
        self.alpha = nn.Parameter(1e-3 * torch.randn(len(EDGES), 6))

    def weights(self):
        return [value for name, value in self.named_parameters() if name != "alpha"]

    def forward(self, x, mix):
        stem = F.relu(self.stem(x))
        inputs = [F.relu(adapter(stem)) for adapter in self.adapters]
        nodes = self.cell_restructured(inputs, mix) if self.restructured else self.cell(inputs, mix)
        return self.head(torch.cat(nodes, 1).mean((2, 3)))

    def cell(self, inputs, mix):
        """Operation by operation, as the paper writes it."""
        states = list(inputs)
        for node in range(2, NODES + 2):
            terms = [
                weight * output
                for index, (start, end) in enumerate(EDGES)
                if end == node
                for weight, output in zip(mix[index], self.edges[index].operations(states[start]))
            ]
            states.append(F.relu(functools.reduce(operator.add, terms)))
        return states[2:]

    def cell_restructured(self, inputs, mix):
        """The same result with less memory traffic, as `forge::supernet` computes it."""
        sums = [None] * (NODES + 2)

        def add(node, term):
            sums[node] = term if sums[node] is None else sums[node] + term

        states = list(inputs)
        for state in range(NODES + 2):
            if state >= 2:
                states.append(F.relu(sums[state]))
            x = states[state]
            readers = [index for index, (start, _) in enumerate(EDGES) if start == state]
            if not readers:
                continue
            for index, term in zip(readers, self.dense(readers, x, mix)):
                add(EDGES[index][1], term)
            for index in readers:
                edge, weight = self.edges[index], mix[index, SEP]
                conv, norm = edge.pointwise
                y = conv(edge.depthwise(x))
                add(EDGES[index][1], batch_norm(y, norm.weight * weight, norm.bias * weight))
            for index, term in zip(readers, self.linear(readers, x, mix)):
                add(EDGES[index][1], term)
        return states[2:]

    def dense(self, readers, x, mix):
        """The dense convolutions that read one state, as one; the softmax weight folded into scale and shift."""
        edges = [self.edges[index].conv for index in readers]
        y = F.conv2d(x, torch.cat([conv.weight for conv, _ in edges]), padding=1)
        scale = torch.cat([norm.weight * mix[index, CONV] for index, (_, norm) in zip(readers, edges)])
        shift = torch.cat([norm.bias * mix[index, CONV] for index, (_, norm) in zip(readers, edges)])
        return batch_norm(y, scale, shift).chunk(len(readers), 1)

    def linear(self, readers, x, mix):
        """Pools and skip of one state, computed once and mixed for all readers by one matrix product."""
        n, c, h, w = x.shape
        rows = [value.permute(0, 2, 3, 1).reshape(-1) for value in (F.max_pool2d(x, 3, 1, 1), F.avg_pool2d(x, 3, 1, 1), x)]
        product = mix[readers][:, [MAX, AVERAGE, SKIP]] @ torch.stack(rows)
        return [row.view(n, h, w, c).permute(0, 3, 1, 2) for row in product.unbind(0)]


def batch_norm(x, scale, shift):
    return F.batch_norm(x, None, None, scale, shift, training=True)


class Bench:
    def __init__(self, variant):
        torch.manual_seed(1)
        self.network = Network(variant == "restructured")
        layout = torch.contiguous_format if variant == "default" else torch.channels_last
        self.network.to(memory_format=layout)
        self.batches = [
            (torch.randn(BATCH, 1, SIZE, SIZE).to(memory_format=layout), torch.arange(BATCH) % CLASSES)
            for _ in range(2)
        ]
        weights = self.network.weights()
        groups = [
            {"params": [weight for weight in weights if weight.dim() > 1], "weight_decay": 3e-4},
            {"params": [weight for weight in weights if weight.dim() == 1], "weight_decay": 0.0},
        ]
        self.sgd = torch.optim.SGD(groups, 0.025, momentum=0.9, nesterov=True)
        self.adam = torch.optim.AdamW([self.network.alpha], 3e-4, betas=(0.5, 0.999), weight_decay=1e-3)

    def loss(self, batch, mix):
        images, labels = self.batches[batch]
        return F.cross_entropy(self.network(images, mix), labels)

    def step(self):
        network = self.network
        loss = self.loss(1, network.alpha.softmax(1))
        (network.alpha.grad,) = torch.autograd.grad(loss, [network.alpha])
        self.adam.step()
        weights = network.weights()
        loss = self.loss(0, network.alpha.detach().softmax(1))
        for weight, gradient in zip(weights, torch.autograd.grad(loss, weights)):
            weight.grad = gradient
        self.sgd.step()
        return loss.item()


def main():
    variant, threads = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    bench = Bench(variant)
    for line in sys.stdin:
        times = []
        for _ in range(json.loads(line)["run"]):
            start = time.perf_counter()
            bench.step()
            times.append((time.perf_counter() - start) * 1e3)
        print(json.dumps(times), flush=True)


if __name__ == "__main__":
    main()
