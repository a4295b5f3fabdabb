"""The papers' experiments: which shipped spec or computed figure reproduces each, and what of it is stored.

A sweep is the spec of the experiment's name; its `full` protocol is the paper's, `reduced` fits two cores. A figure
that needs no sweep is a function of `trainers.figures`, called with the options of its protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PROTOCOLS = ("full", "reduced")
PAPERS = {
    "s13": "Sutskever, Martens, Dahl, Hinton 2013: On the importance of initialization and momentum in deep learning",
    "gb10": "Glorot, Bengio 2010: Understanding the difficulty of training deep feedforward neural networks",
    "hr18": "Hanin, Rolnick 2018: How to start training, the effect of initialization and architecture",
}


@dataclass(frozen=True, slots=True)
class Experiment:
    """One experiment of a paper; its name begins with the paper's."""

    name: str
    title: str
    metrics: tuple[str, ...] = ()
    """Measurements that claims need, kept for every trial of a sweep; `test_...` is measured once, at the end."""
    compute: str = ""
    """`module:function` of a computed figure; empty for a sweep."""
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What a computed figure is called with, by protocol."""

    @property
    def paper(self) -> str:
        """Key of `PAPERS`."""
        return self.name.partition("-")[0]


_FIGURES = "trainers.figures"
_TRAIN = ("train_squared_error",)
_ERROR = ("valid_error",)
_GB10 = ("valid_error", "test_error")
EXPERIMENTS: Mapping[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        Experiment("s13-factorial", "Section 3: init x momentum on the CURVES autoencoder", _TRAIN),
        Experiment("s13-factorial-rnn", "Section 4: init x momentum on a recurrent net, add", _ERROR),
        Experiment("s13-fig2", "Fig. 2: an oblong quadratic", compute=f"{_FIGURES}.quadratic:oblong"),
        Experiment("s13-table1-curves", "Table 1: methods and mu_max on CURVES", _TRAIN),
        Experiment("s13-table1-mnist", "Table 1: methods and mu_max on MNIST", _TRAIN),
        Experiment("s13-table1-faces", "Table 1: methods and mu_max on FACES", _TRAIN),
        Experiment("s13-table2", "Table 2: the last phase at mu = .9", (*_TRAIN, f"fork/lowered/{_TRAIN[0]}")),
        Experiment("s13-early-lowering", "Section 3: lowering mu early", _TRAIN),
        Experiment("s13-table3", "Table 3: scale of the sparse init", _TRAIN),
        Experiment("s13-table5-add", "Table 5: add", _ERROR),
        Experiment("s13-table5-mul", "Table 5: mul", _ERROR),
        Experiment("s13-table5-mem-5", "Table 5: mem-5", ("valid_recall_errors",)),
        Experiment("s13-table5-mem-20", "Table 5: mem-20", ("valid_recall_errors",)),
        Experiment("s13-rnn-spectral-radius", "Section 4: spectral radius of the recurrent weights", _ERROR),
        Experiment("s13-rnn-input-scale", "Table 4: scale of the input weights", _ERROR),
        Experiment("s13-fig3-centred", "Fig. 3: mul with inputs and outputs centred", _ERROR),
        Experiment("s13-fig3-uncentred", "Fig. 3: mul with outputs not centred", _ERROR),
        Experiment("s13-fig5", "Fig. 5: CG and NAG on a damped quadratic", compute=f"{_FIGURES}.conjugate:on_curves",
                   options={"full": {"size": 28, "passes": 500},
                            "reduced": {"size": 14, "examples": 2_000, "passes": 400}}),
        Experiment("s13-hf-race", "Table 1: momentum against Hessian-free optimisation, for the same work", _TRAIN),
        Experiment("gb10-table1-shapeset", "Table 1 and Fig. 11: Shapeset-3x2", _GB10),
        Experiment("gb10-table1-mnist", "Table 1 and Fig. 12: MNIST", _GB10),
        Experiment("gb10-table1-cifar10", "Table 1 and Fig. 12: CIFAR-10", _GB10),
        Experiment("gb10-table1-small-imagenet", "Table 1: Small-ImageNet", _GB10),
        Experiment("gb10-svm", "Section 5: an RBF-SVM on Shapeset", compute=f"{_FIGURES}.kernel:svm_on_shapeset",
                   options={"full": {"size": 32, "examples": 100_000},
                            "reduced": {"size": 20, "examples": 5_000, "width": 200}}),
        Experiment("gb10-monitoring", "Fig. 2-4, 9, 10: activations and gradients through training", _ERROR),
        Experiment("gb10-fig5", "Fig. 5: cost surface of two weights", compute=f"{_FIGURES}.surface:cost_surface"),
        Experiment("gb10-init", "Fig. 6-8, section 4.2.1: at init", compute=f"{_FIGURES}.at_init:gradients",
                   options={"full": {"width": 1000}, "reduced": {"width": 300}}),
        Experiment("gb10-widths", "Section 5: widths that grow or shrink", _ERROR),
        Experiment("gb10-fig11", "Fig. 11: denoising pre-training", _ERROR),
        Experiment("hr18-fig1", "Fig. 1b: start with width = depth, by init", _ERROR),
        Experiment("hr18-fig1-lengths", "Fig. 1a: mean length by depth", compute=f"{_FIGURES}.at_init:lengths"),
        Experiment("hr18-fig2", "Fig. 2b: start of residual nets", _ERROR),
        Experiment("hr18-fig2-lengths", "Fig. 2a: mean length of residual nets",
                   compute=f"{_FIGURES}.at_init:residual_lengths"),
        Experiment("hr18-fig3", "Fig. 3: start by architecture", _ERROR),
    )
}  # fmt: skip
