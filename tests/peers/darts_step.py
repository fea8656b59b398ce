"""The step of `edgewright-forge bench-step` in PyTorch eager.

darts_step.py VARIANT THREADS START METHOD, VARIANT one of default, channels_last, restructured, METHOD one of darts,
darts-second-order, gdas, partial-channels, evolution, hypernetwork. START is the file that
`edgewright-forge bench-step --start` writes for that method: weights and batches that the first step begins from, or with
its --images the images that it goes through. One JSON object a line on standard input: {"run": N} is answered with
{"ms": [...], "loss": [...], "version": PyTorch's}, one number a step, the loss that of the weight step;
{"until": ACCURACY, "most": N, "each": N} with {"seconds", "steps", "accuracy"}.

The step is the one that `control-plane/forge/src/bench_step.rs` describes, number by number. All variants compute the same
loss and the same gradients; they differ in how:

- default: operation by operation, tensors in PyTorch's default layout;
- channels_last: the same, tensors and weights channels last;
- restructured: channels last, and less memory traffic; of darts and darts-second-order alone.
"""

import functools
import json
import operator
import struct
import sys
import time
import warnings

warnings.filterwarnings("ignore", message="Failed to initialize NumPy")

import torch
import torch.nn.functional as F
from torch import nn

from generated import GeneratedConv2d, Generator

BATCH, SIZE, CHANNELS, CLASSES, NODES, FAN_IN = 64, 28, 16, 10, 4, 2
CONV, SEP, MAX, AVERAGE, SKIP, ZERO = range(6)
WITH_ALPHA = ("darts", "darts-second-order", "gdas", "partial-channels")
ALONG_PATHS = ("evolution", "hypernetwork")
# Of as many channels of a partial supernet one goes through the operations.
PARTIAL = 4
WEIGHT_RATE, GRADIENT_NORM_MAX, DIFFERENCE_NORM = 0.025, 5.0, 0.01
GUMBEL_TEMPERATURE = 5.05
# Images of one look at the accuracy.
LOOK = 256
EDGES = [(start, node) for node in range(2, NODES + 2) for start in range(node - FAN_IN, node)]


def plain_conv(channels_in, channels_out, kernel, groups=1):
    return nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, groups=groups, bias=False)


def conv_bn(channels_in, channels_out, kernel, conv=plain_conv):
    norm = nn.BatchNorm2d(channels_out, track_running_stats=False)
    return nn.Sequential(conv(channels_in, channels_out, kernel), norm)


class Edge(nn.Module):
    def __init__(self, channels, conv):
        super().__init__()
        self.conv = conv_bn(channels, channels, 3, conv)
        self.depthwise = conv(channels, channels, 5, groups=channels)
        self.pointwise = conv_bn(channels, channels, 1, conv)

    def operations(self, x):
        return [self.operation(index, x) for index in range(6)]

    def operation(self, index, x):
        if index == CONV:
            return self.conv(x)
        if index == SEP:
            return self.pointwise(self.depthwise(x))
        if index == MAX:
            return F.max_pool2d(x, 3, 1, 1)
        if index == AVERAGE:
            return F.avg_pool2d(x, 3, 1, 1)
        return x if index == SKIP else torch.zeros_like(x)


class Network(nn.Module):
    def __init__(self, restructured, method):
        super().__init__()
        assert method in ("darts", "darts-second-order") or not restructured, f"{method} is not restructured"
        self.restructured, self.method = restructured, method
        channels, columns = (CHANNELS // PARTIAL, 7) if method == "partial-channels" else (CHANNELS, 6)
        self.stem = conv_bn(1, CHANNELS, 3)
        self.adapters = nn.ModuleList(conv_bn(CHANNELS, CHANNELS, 1) for _ in range(2))
        self.generator = Generator(CHANNELS) if method == "hypernetwork" else None
        conv = functools.partial(GeneratedConv2d, self.generator) if self.generator else plain_conv
        self.edges = nn.ModuleList(Edge(channels, conv) for _ in EDGES)
        self.head = nn.Linear(NODES * CHANNELS, CLASSES)
        self.alpha = nn.Parameter(torch.zeros(len(EDGES), columns)) if method in WITH_ALPHA else None

    def weights(self):
        return [value for name, value in self.named_parameters() if name != "alpha"]

    def weight_groups(self):
        """The weights as an optimiser takes them: what decays, and what does not."""
        spared = {id(value) for value in self.generator.embeddings()} if self.generator else set()

        def decays(weight):
            return weight.dim() > 1 and id(weight) not in spared

        return [
            {"params": [weight for weight in self.weights() if decays(weight)], "weight_decay": 3e-4},
            {"params": [weight for weight in self.weights() if not decays(weight)], "weight_decay": 0.0},
        ]

    def named_as_ours(self):
        """Every parameter under the name that the forge gives it."""
        names = {"head.weight": self.head.weight, "head.bias": self.head.bias}
        if self.alpha is not None:
            names["alpha"] = self.alpha
        if self.generator:
            names.update(self.generator.named_as_ours())

        def add_conv(layer, name):
            names[name] = layer.weight
            if isinstance(layer, GeneratedConv2d):
                names[f"{name}.code"] = layer.code

        def add_conv_bn(layer, conv, gamma, beta):
            add_conv(layer[0], conv)
            names.update({gamma: layer[1].weight, beta: layer[1].bias})

        blocks = {"stem": self.stem, **{f"cell0.adapter{side}": block for side, block in enumerate(self.adapters)}}
        for name, block in blocks.items():
            add_conv_bn(block, f"{name}.weight", f"{name}.gamma", f"{name}.beta")
        for (start, end), edge in zip(EDGES, self.edges):
            name = f"cell0.edge{start}_{end}"
            add_conv_bn(edge.conv, f"{name}.conv3.weight", f"{name}.conv3.gamma", f"{name}.conv3.beta")
            add_conv(edge.depthwise, f"{name}.sep5.depthwise")
            add_conv_bn(edge.pointwise, f"{name}.sep5.weight", f"{name}.sep5.gamma", f"{name}.sep5.beta")
        assert len(names) == len(list(self.parameters())), "a parameter without a name"
        return names

    def load(self, tensors):
        names = self.named_as_ours()
        assert names.keys() == tensors.keys(), f"other parameters: {names.keys() ^ tensors.keys()}"
        with torch.no_grad():
            for name, parameter in names.items():
                assert parameter.shape == tensors[name].shape, f"{name} has the shape {tensors[name].shape}"
                parameter.copy_(tensors[name])

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
                term
                for index, (start, end) in enumerate(EDGES)
                if end == node
                for term in self.terms(index, states[start], mix)
            ]
            states.append(F.relu(functools.reduce(operator.add, terms)))
        return states[2:]

    def terms(self, index, x, mix):
        """What one edge gives, to be added up."""
        edge = self.edges[index]
        if self.method in ALONG_PATHS:
            return [edge.operation(mix[index], x)]
        if self.method == "gdas":
            weights, drawn = mix
            return [weights[index, drawn[index]] * edge.operation(drawn[index], x)]
        if self.method == "partial-channels":
            weights, shares = mix
            through, past = x[:, : CHANNELS // PARTIAL], x[:, CHANNELS // PARTIAL :]
            mixed = [weight * output for weight, output in zip(weights[index], edge.operations(through))]
            return [shares[index] * shuffle(torch.cat([functools.reduce(operator.add, mixed), past], 1))]
        return [weight * output for weight, output in zip(mix[index], edge.operations(x))]

    def mix(self, alpha, noise):
        """What a pass weights the operations by."""
        if self.method == "gdas":
            soft = ((alpha + noise) / GUMBEL_TEMPERATURE).softmax(1)
            drawn = soft.argmax(1)
            return F.one_hot(drawn, 6) - soft.detach() + soft, drawn.tolist()
        if self.method == "partial-channels":
            shares = alpha[:, 6].view(NODES, FAN_IN).softmax(1).view(-1)
            return alpha[:, :6].softmax(1), shares
        return alpha.softmax(1)

    def cell_restructured(self, inputs, mix):
        """The same result with less memory traffic."""
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


def shuffle(x):
    n, c, h, w = x.shape
    return x.view(n, PARTIAL, c // PARTIAL, h, w).transpose(1, 2).reshape(n, c, h, w)


def batch_norm(x, scale, shift):
    return F.batch_norm(x, None, None, scale, shift, training=True)


def read_safetensors(path):
    """The f32 tensors of a safetensors file, by name."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header, data = json.loads(file.read(length)), bytearray(file.read())
    header.pop("__metadata__", None)
    assert all(entry["dtype"] == "F32" for entry in header.values()), "a tensor that is not f32"

    def tensor(entry):
        start, end = entry["data_offsets"]
        values = torch.frombuffer(data, dtype=torch.float32, count=(end - start) // 4, offset=start)
        return values.reshape(entry["shape"]).clone()

    return {name: tensor(entry) for name, entry in header.items()}


class Bench:
    """What the steps of all methods have in common."""

    def __init__(self, variant, tensors, method):
        inputs = [tensors.pop("x_weights"), tensors.pop("x_arch")]
        parts = [
            [tensors.pop(f"images.{part}.{of}", None) for of in ("x", "labels")] for part in ("weights", "arch", "held")
        ]
        self.network = Network(variant == "restructured", method)
        self.network.load(tensors)
        layout = torch.contiguous_format if variant == "default" else torch.channels_last
        self.network.to(memory_format=layout)
        assert all(x.shape == (BATCH, 1, SIZE, SIZE) for x in inputs), "batches of another shape"
        self.batches = [(x.to(memory_format=layout), torch.arange(BATCH) % CLASSES) for x in inputs]
        self.steps, self.images = 0, None
        if parts[0][0] is not None:
            self.images = [(x.to(memory_format=layout), labels.long()) for x, labels in parts]
        self.sgd = torch.optim.SGD(self.network.weight_groups(), WEIGHT_RATE, momentum=0.9, nesterov=True)

    def batch(self, part):
        if self.images is None:
            return self.batches[part]
        images, labels = self.images[part]
        first = self.steps % (len(images) // BATCH) * BATCH
        return images[first : first + BATCH], labels[first : first + BATCH]

    def until(self, accuracy, most, each):
        done = {"seconds": 0.0, "steps": 0, "accuracy": 0.0}
        while done["steps"] < most and done["accuracy"] < accuracy:
            now = max(1, min(each, most - done["steps"]))
            began = time.perf_counter()
            for _ in range(now):
                self.step()
            done["seconds"] += time.perf_counter() - began
            done["steps"] += now
            done["accuracy"] = self.accuracy()
        return done

    def accuracy(self):
        images, labels = self.images[2]
        right = 0
        with torch.no_grad():
            mix = self.look()
            for x, of in zip(images.split(LOOK), labels.split(LOOK)):
                right += (self.network(x, mix).argmax(1) == of).sum().item()
        return right / len(labels)

    def loss_of(self, batch, mix):
        images, labels = self.batch(batch)
        return F.cross_entropy(self.network(images, mix), labels)

    def differentiate(self, loss, partly):
        """Gives every weight its gradient: zero to what was not computed, where only part of the network was; momentum
        and decay go on all the same."""
        weights = self.network.weights()
        gradients = torch.autograd.grad(loss, weights, allow_unused=partly)
        for weight, gradient in zip(weights, gradients):
            weight.grad = torch.zeros_like(weight) if gradient is None else gradient


class Bilevel(Bench):
    """The methods with architecture weights: an architecture step, then a weight step."""

    def __init__(self, variant, tensors, method):
        self.noise, self.passes = tensors.pop("noise", [None]), 0
        super().__init__(variant, tensors, method)
        self.adam = torch.optim.AdamW([self.network.alpha], 3e-4, betas=(0.5, 0.999), weight_decay=1e-3)

    def mix(self, alpha):
        return self.network.mix(alpha, self.noise[self.passes % len(self.noise)])

    def look(self):
        return self.mix(self.network.alpha)

    def loss(self, batch, alpha):
        return self.loss_of(batch, self.mix(alpha))

    def step(self):
        network = self.network
        if network.method == "darts-second-order":
            network.alpha.grad = self.second_order()
        else:
            (network.alpha.grad,) = torch.autograd.grad(self.loss(1, network.alpha), [network.alpha])
        self.passes += 1
        self.adam.step()
        loss = self.loss(0, network.alpha.detach())
        self.passes += 1
        self.differentiate(loss, partly=network.method == "gdas")
        self.sgd.step()
        self.steps += 1
        return loss.item()

    def second_order(self):
        """The gradient of the architecture through one weight step."""
        alpha, weights = self.network.alpha, self.network.weights()
        start = [weight.detach().clone() for weight in weights]

        def move(direction, distance):
            with torch.no_grad():
                torch._foreach_copy_(weights, start)
                torch._foreach_add_(weights, direction, alpha=distance)

        def norm(gradients):
            return torch.stack(torch._foreach_norm(gradients)).norm().item()

        down = torch.autograd.grad(self.loss(0, alpha.detach()), weights)
        rate = WEIGHT_RATE * min(1.0, GRADIENT_NORM_MAX / norm(down))
        move(down, -rate)
        *along, direct = torch.autograd.grad(self.loss(1, alpha), [*weights, alpha])
        epsilon = DIFFERENCE_NORM / norm(along)
        sides = []
        for side in (epsilon, -epsilon):
            move(along, side)
            sides += torch.autograd.grad(self.loss(0, alpha), [alpha])
        move(along, 0.0)
        plus, minus = sides
        return direct - (plus - minus) * (rate / (2 * epsilon))


class Paths(Bench):
    """The methods without: a weight step along one path through the network."""

    def __init__(self, variant, tensors, method):
        self.paths = tensors.pop("paths").long().tolist()
        super().__init__(variant, tensors, method)

    def look(self):
        """The path of most weights, always the same."""
        return [CONV] * len(EDGES)

    def step(self):
        loss = self.loss_of(0, self.paths[self.steps % len(self.paths)])
        self.differentiate(loss, partly=True)
        nn.utils.clip_grad_norm_(self.network.weights(), GRADIENT_NORM_MAX)
        self.sgd.step()
        self.steps += 1
        return loss.item()


def main():
    variant, threads, start, method = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
    assert method in WITH_ALPHA + ALONG_PATHS, f"{method} is no method"
    assert variant in ("default", "channels_last", "restructured"), f"{variant} is no variant"
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    bench = (Bilevel if method in WITH_ALPHA else Paths)(variant, read_safetensors(start), method)
    for line in sys.stdin:
        request = json.loads(line)
        if "until" in request:
            print(json.dumps(bench.until(request["until"], request["most"], request["each"])), flush=True)
            continue
        times, losses = [], []
        for _ in range(request["run"]):
            began = time.perf_counter()
            losses.append(bench.step())
            times.append((time.perf_counter() - began) * 1e3)
        print(json.dumps({"ms": times, "loss": losses, "version": torch.__version__}), flush=True)


if __name__ == "__main__":
    main()
