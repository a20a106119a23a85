"""The core: paths -> predictions -> denoisers. Everything else in the library is written in these words."""

from lecture_lib.core.conditions import Cond, drop_condition
from lecture_lib.core.couplings import given_noise, independent, minibatch_ot, offset_noise
from lecture_lib.core.denoiser import Denoiser, Given, quarter_log_noise, thousand, unit_input
from lecture_lib.core.grids import (
    check_grid,
    exponential_grid,
    karras_grid,
    leading_grid,
    linspace_grid,
    logsnr_grid,
    quadratic_grid,
    then_clean,
    timestep_grid,
    trailing_grid,
    uniform_grid,
)
from lecture_lib.core.interpolants import (
    BrownianNoise,
    Interpolant,
    TwoSided,
    encoding_decoding,
    linear_interpolant,
    no_noise,
    one_sided,
    parabolic_noise,
    sine_noise,
    trigonometric_interpolant,
)
from lecture_lib.core.likelihood import exact_divergence, hutchinson, log_likelihood
from lecture_lib.core.losses import min_snr, plain, truncated_snr
from lecture_lib.core.parameterization import EPS, SCORE, VELOCITY, X0, Parameterization, V, edm
from lecture_lib.core.paths import EDM, Coeffs, Path, RectifiedFlow, Trigonometric, VPCosine, VPLinear
from lecture_lib.core.prediction import Denoise, Prediction
from lecture_lib.core.rebase import rebase
from lecture_lib.core.schedules import FunctionPath, LearnedSchedule, Sigmoid
from lecture_lib.core.shift import ShiftedTimes, shift_times, shifted_grid
from lecture_lib.core.tables import Discrete, cosine_table, ddpm_linear, stable_diffusion, zero_terminal_snr
from lecture_lib.core.times import LogitNormalTimes, LogNormalNoise, Times, UniformTimes
from lecture_lib.core.transport import AdaptiveRungeKutta, OdeSolver, RungeKutta4, runge_kutta

__all__ = [
    "EDM",
    "EPS",
    "SCORE",
    "VELOCITY",
    "X0",
    "AdaptiveRungeKutta",
    "BrownianNoise",
    "Coeffs",
    "Cond",
    "Denoise",
    "Denoiser",
    "Discrete",
    "FunctionPath",
    "Given",
    "Interpolant",
    "LearnedSchedule",
    "LogNormalNoise",
    "LogitNormalTimes",
    "OdeSolver",
    "Parameterization",
    "Path",
    "Prediction",
    "RectifiedFlow",
    "RungeKutta4",
    "ShiftedTimes",
    "Sigmoid",
    "Times",
    "Trigonometric",
    "TwoSided",
    "UniformTimes",
    "V",
    "VPCosine",
    "VPLinear",
    "check_grid",
    "cosine_table",
    "ddpm_linear",
    "drop_condition",
    "edm",
    "encoding_decoding",
    "exact_divergence",
    "exponential_grid",
    "given_noise",
    "hutchinson",
    "independent",
    "karras_grid",
    "leading_grid",
    "linear_interpolant",
    "linspace_grid",
    "log_likelihood",
    "logsnr_grid",
    "min_snr",
    "minibatch_ot",
    "no_noise",
    "offset_noise",
    "one_sided",
    "parabolic_noise",
    "plain",
    "quadratic_grid",
    "quarter_log_noise",
    "rebase",
    "runge_kutta",
    "shift_times",
    "shifted_grid",
    "sine_noise",
    "stable_diffusion",
    "then_clean",
    "thousand",
    "timestep_grid",
    "trailing_grid",
    "trigonometric_interpolant",
    "truncated_snr",
    "uniform_grid",
    "unit_input",
    "zero_terminal_snr",
]
