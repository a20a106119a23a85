"""Out of Python: a one-step student as a function of tensors alone, as an ONNX file, and as one with 8-bit weights.

    picture = x0 of the student, asked once at t_max        (noise, label[, w]) -> picture

Path, time and parameterization are three numbers by then: what is exported is the network and one weighted sum.
``onnx``, ``onnxscript`` and ``onnxruntime`` (the extra ``lab``) are loaded where they are first needed.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.export import Dim

from lecture_lib.core import Denoiser
from lecture_lib.errors import MissingPackageError, ShapeError
from lecture_lib.tensors import check_count


class OneStepGenerator(nn.Module):
    """A student's single step, with all that does not depend on the sample worked out beforehand.

    Args:
        student: a class-conditional denoiser whose x0 is the end of the trajectory; its condition is a label, or
            ``{"label", "w"}``.

    Raises:
        ShapeError: a student that hears something else.
    """

    def __init__(self, student: Denoiser) -> None:
        super().__init__()
        keys = {"label"} if isinstance(student.null, Tensor) else set(student.null or ())
        if keys not in ({"label"}, {"label", "w"}):
            raise ShapeError(f"student: its null condition is {student.null!r}, expected a label, or a label and w")
        self.network, self.inputs = student.network, ("noise", "label", "w")[: 1 + len(keys)]
        t = torch.tensor([student.path.t_max], dtype=torch.float64)
        c = student.path.coeffs(t)
        (on_noise, on_output), _ = student.parameterization.inverse(c)
        self.on_noise, self.on_output = float(on_noise), float(on_output)
        self.time = float(student.network_time(student.path, t))
        self.scale = 1.0 if student.input_scale is None else float(student.input_scale(c))

    def forward(
        self, noise: Float[Tensor, " b c h w"], label: Int[Tensor, " b"], w: Float[Tensor, " b"] | None = None
    ) -> Float[Tensor, " b c h w"]:
        """The pictures; ``w`` for a student that hears it.

        Raises:
            ShapeError: w is given to a student that does not hear it.
        """
        if w is not None and "w" not in self.inputs:
            raise ShapeError(f"w: got the inputs noise, label, w, expected {', '.join(self.inputs)}")
        time = torch.full_like(noise[:, 0, 0, 0], self.time)
        cond = {"label": label, "w": w} if "w" in self.inputs else label
        return self.on_noise * noise + self.on_output * self.network(self.scale * noise, time, cond)


def to_onnx(generator: OneStepGenerator, shape: tuple[int, int, int], file: Path | str) -> Path:
    """Write the generator as an ONNX file, for any batch size; its inputs keep their names.

    Args:
        generator: in evaluation mode.
        shape: channels, height and width of a picture.
        file: where to.

    Raises:
        MissingPackageError: ``onnx`` or ``onnxscript`` is not installed.
    """
    for package in ("onnx", "onnxscript"):
        _needed(package)
    # Two samples, since torch.export takes a size of 1 for a constant.
    example = (torch.zeros(2, *shape), torch.zeros(2, dtype=torch.long), torch.ones(2))[: len(generator.inputs)]
    batch = {0: Dim("batch")}
    with _quiet():
        torch.onnx.export(
            generator,
            example,
            file,
            dynamo=True,
            external_data=False,
            dynamic_shapes=dict.fromkeys(generator.inputs, batch),
            input_names=list(generator.inputs),
            output_names=["picture"],
            verbose=False,
        )
    return Path(file)


def to_int8(source: Path | str, file: Path | str) -> Path:
    """The same ONNX model with its weights as 8-bit integers, one scale per output channel: a third of the bytes.

    *Dynamic* quantisation: what a layer receives is quantised when it comes, by its own largest and smallest number,
    so no calibration data are needed. Sums are 32-bit integers; norms, softmax and what lies between stay floats.

    Raises:
        MissingPackageError: ``onnxruntime`` or ``onnx`` is not installed.
    """
    for package in ("onnx", "onnxruntime"):
        _needed(package)
    quantization = _needed("onnxruntime.quantization")
    with _quiet():
        quantization.quantize_dynamic(source, file, weight_type=quantization.QuantType.QInt8, per_channel=True)
    return Path(file)


class OnnxGenerator:
    """An exported generator, run by onnxruntime on the CPU: tensors in, tensors out, as ``OneStepGenerator``.

    Args:
        file: what ``to_onnx`` or ``to_int8`` wrote.
        threads: CPU threads.

    Raises:
        MissingPackageError: ``onnxruntime`` is not installed.
    """

    def __init__(self, file: Path | str, *, threads: int = 1) -> None:
        runtime = _needed("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = check_count("threads", threads)
        self.session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self.inputs = tuple(value.name for value in self.session.get_inputs())

    def __call__(
        self, noise: Float[Tensor, " b c h w"], label: Int[Tensor, " b"], w: Float[Tensor, " b"] | None = None
    ) -> Float[Tensor, " b c h w"]:
        """The pictures.

        Raises:
            ShapeError: w is missing for a model that hears it, or given to one that does not.
        """
        given = {"noise": noise, "label": label} | ({} if w is None else {"w": w})
        if set(given) != set(self.inputs):
            raise ShapeError(f"w: got the inputs {', '.join(given)}, expected {', '.join(self.inputs)}")
        (picture,) = self.session.run(None, {name: value.numpy() for name, value in given.items()})
        return torch.from_numpy(picture)


def _needed(package: str) -> ModuleType:
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"{package} is needed to take a model out of Python: pip install 'lecture-lib[lab]'"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter and the quantiser tell about their own insides."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
