"""The network: inverted residuals with depthwise convolutions, after MobileNetV2 (Sandler et al. 2018)."""

from __future__ import annotations

import io
from typing import Any

import torch
from torch import nn

from workloads.digits.recognise import INPUT_HEIGHT, INPUT_WIDTH

CLASSES = 10
STEM_CHANNELS = 24
HEAD_CHANNELS = 320
# Expansion, channels, blocks, stride of the first block: the columns of MobileNetV2's table.
STAGES = ((1, 16, 1, 1), (4, 32, 3, 2), (4, 48, 3, 2), (4, 96, 3, 2))


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    )


class InvertedResidual(nn.Module):
    """Expand, filter each channel alone, project; with a shortcut where the shapes allow one."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self._has_shortcut = stride == 1 and inputs == outputs
        self.body = nn.Sequential(
            _convolution(inputs, hidden, 1),
            nn.ReLU6(),
            _convolution(hidden, hidden, 3, stride, groups=hidden),
            nn.ReLU6(),
            _convolution(hidden, outputs, 1),
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """[B, inputs, H, W] to [B, outputs, H / stride, W / stride]."""
        filtered: torch.Tensor = self.body(features)
        return features + filtered if self._has_shortcut else filtered


class DigitNetwork(nn.Module):
    """From pixels to a score for each digit. Takes bytes, so that the device need not convert them."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [_convolution(1, STEM_CHANNELS, 3, 2), nn.ReLU6()]
        channels = STEM_CHANNELS
        for expansion, outputs, blocks, first_stride in STAGES:
            for block in range(blocks):
                stride = first_stride if block == 0 else 1
                layers.append(InvertedResidual(channels, outputs, stride, expansion))
                channels = outputs
        layers += [_convolution(channels, HEAD_CHANNELS, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.1), nn.Linear(HEAD_CHANNELS, CLASSES))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """[B, 1, 120, 160] uint8 to scores [B, 10]."""
        centred = (pixels.float() - 128.0) / 64.0
        scores: torch.Tensor = self.classifier(self.features(centred))
        return scores


def count_multiply_adds(network: nn.Module) -> int:
    """Multiply-adds of convolutions and linear layers for one frame; one multiply-add is two FLOPs."""
    total = 0

    def add(module: nn.Module, _inputs: Any, outputs: torch.Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d | nn.Linear)
        total += module.weight[0].numel() * outputs[0].numel()

    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(add) for layer in layers]
    with torch.no_grad():
        network(torch.zeros(1, 1, INPUT_HEIGHT, INPUT_WIDTH, dtype=torch.uint8))
    for hook in hooks:
        hook.remove()
    return total


def to_onnx(network: nn.Module) -> bytes:
    """The network as an ONNX file for batches of any size, without the exporter's notes on its surroundings."""
    # An example batch of 1 would be taken for a constant.
    example = torch.zeros(2, 1, INPUT_HEIGHT, INPUT_WIDTH, dtype=torch.uint8)
    program = torch.onnx.export(
        network.eval(),
        (example,),
        input_names=["pixels"],
        output_names=["scores"],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    # The exporter records stack traces with the paths of the machine that it ran on.
    for part in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    model.ClearField("metadata_props")
    buffer = io.BytesIO()
    buffer.write(model.SerializeToString(deterministic=True))
    return buffer.getvalue()
