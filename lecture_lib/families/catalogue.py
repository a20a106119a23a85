"""All families, in the order of the lecture."""

from __future__ import annotations

from lecture_lib.families.autoregressive import AutoregressiveTransformer
from lecture_lib.families.base import GenerativeModel
from lecture_lib.families.bridges import SchrodingerBridge
from lecture_lib.families.cnf import CNF
from lecture_lib.families.denoising import FlowMatching, OTFlowMatching
from lecture_lib.families.diffflow import DiffFlow
from lecture_lib.families.diffusion import DDPM, VESDE, VPSDE, SubVPSDE
from lecture_lib.families.energy import EnergyBased
from lecture_lib.families.energy_matching import EnergyMatching
from lecture_lib.families.gan import GAN
from lecture_lib.families.interpolants import OneSidedInterpolant, StochasticInterpolant
from lecture_lib.families.iterated_bridges import BridgeMatching, DiffusionSchrodingerBridge
from lecture_lib.families.jepa import JEPA, VJEPA
from lecture_lib.families.jko import JKOFlow
from lecture_lib.families.learned_interpolant import LearnedInterpolant
from lecture_lib.families.mar import MAR
from lecture_lib.families.particles import MMDFlow
from lecture_lib.families.pixelcnn import PixelCNN
from lecture_lib.families.r3gan import R3GAN
from lecture_lib.families.realnvp import RealNVP
from lecture_lib.families.rectified import Reflow
from lecture_lib.families.stylegan import StyleGAN
from lecture_lib.families.transfusion import Transfusion
from lecture_lib.families.unbalanced import UnbalancedTransport
from lecture_lib.families.vae import VAE, BetaVAE
from lecture_lib.families.var import VAR
from lecture_lib.families.vq import FSQVAE, VQVAE
from lecture_lib.families.wgan import WGANGP

LATENT = (VAE, BetaVAE, VQVAE, FSQVAE)
EXACT = (RealNVP, CNF, PixelCNN, AutoregressiveTransformer)
IMPLICIT = (GAN, WGANGP, StyleGAN, R3GAN)
SCORES = (DDPM, VPSDE, VESDE, SubVPSDE)
ENERGIES = (EnergyBased, EnergyMatching)
FLOWS = (FlowMatching, OTFlowMatching, Reflow, LearnedInterpolant)
BRIDGES = (
    OneSidedInterpolant,
    StochasticInterpolant,
    SchrodingerBridge,
    DiffusionSchrodingerBridge,
    BridgeMatching,
)
VIEWS = (DiffFlow, JKOFlow, MMDFlow, UnbalancedTransport)
TOKENS = (VAR, MAR, Transfusion)
REPRESENTATIONS = (JEPA, VJEPA)  # no generative models, and they say so

CATALOGUE: tuple[type[GenerativeModel], ...] = (
    *LATENT,
    *EXACT,
    *IMPLICIT,
    *SCORES,
    *ENERGIES,
    *FLOWS,
    *BRIDGES,
    *VIEWS,
    *TOKENS,
    *REPRESENTATIONS,
)
