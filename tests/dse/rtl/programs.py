"""Programs of operations for the cores, with what the integer reference adds up."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from dse.core.shipped import data_dir
from dse.hardware.candidate import Candidate, Overflow
from dse.hardware.candidates import load_candidates
from dse.rtl.operands import OPERATIONS, PRECISIONS, Accumulator, lanes, pack, weight_codes
from search.layers.mac_cores import CORES, IntegerLayer, Integers, accumulate, core_sums

CANDIDATES = {c.name: c for c in load_candidates(data_dir("arch_specs") / "operators_rtl.yaml")}
LONG, SHORT = Accumulator().long, Accumulator().short


@dataclass(frozen=True)
class Operations:
    """Cycles of one candidate: operands, and the exact sum that each cycle adds."""

    candidate: Candidate
    signed: bool
    x: Integers
    w: Integers
    terms: Integers


def operations(candidate: Candidate, signed: bool, rng: np.random.Generator, extra: int = 40) -> Operations:
    """All pairs of words of 2 and 4 bits, corners and random ones of 8 bits, in random lanes."""
    bits = candidate.bits
    x_all = np.arange(1 << bits) - ((1 << bits - 1) if signed else 0)
    w_all = _weights(candidate)
    if bits == 8:
        pairs: list[Any] = [*itertools.product(_corners(x_all), _corners(w_all))]
        pairs += zip(rng.choice(x_all, extra), rng.choice(w_all, extra), strict=True)
    else:
        pairs = [*itertools.product(x_all, w_all)]
    pairs += [pairs[i] for i in rng.integers(0, len(pairs), -len(pairs) % lanes(bits))]
    words = rng.permutation(np.array(pairs)).reshape(-1, lanes(bits), 2)
    x, w = words[..., 0], words[..., 1]
    terms = sum(np.broadcast_to(t, x.shape).sum(1)
                for t in CORES[candidate.operator](x, w, np.ones_like(x), candidate, signed))  # fmt: skip
    width = 1 if candidate.operator == "binary_connect" else bits
    codes = weight_codes(candidate.operator, w, bits)
    return Operations(candidate, signed, pack(x, bits, bits), pack(codes, bits, width), np.asarray(terms))


def mixed_program(seed: int, overflow: Overflow, *, extra: int = 40) -> dict[str, Any]:
    """Cycles of all candidates in random order, so that the mode changes between operations, with idle cycles.

    Returns the core's inputs by name, one value a cycle, and `expected`: the accumulator after each.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for candidate, signed in itertools.product(CANDIDATES.values(), (False, True)):
        of = operations(candidate, signed, rng, extra)
        code = OPERATIONS.index(candidate.operator), PRECISIONS.index(candidate.bits), int(signed)
        rows += [(*code, int(x), int(w), int(t)) for x, w, t in zip(of.x, of.w, of.terms, strict=True)]
    rows = [rows[i] for i in rng.permutation(len(rows))]
    names = ("operation", "precision", "signed_x", "wide", "valid", "first", "x", "w", "expected")
    program: dict[str, list[int]] = {name: [] for name in names}
    total, wide = 0, 1
    for i, (operation, precision, signed_x, x, w, term) in enumerate(rows):
        while rng.random() < 1 / 10:  # idle cycles, with operands that must have no effect
            _append(program, operation, precision, signed_x, wide, 0, 1, 255 - x, w, total)
        first = i == 0 or rng.random() < 1 / 12
        wide = int(rng.integers(0, 2)) if first else wide
        width = LONG if wide else SHORT
        before = np.array(0 if first else total)
        total = int(accumulate(np.stack([before, np.array(term)]), width, overflow))
        _append(program, operation, precision, signed_x, wide, 1, int(first), x, w, total)
    return program | {"short": SHORT, "long": LONG}


def single_program(candidate: Candidate, signed: bool, seed: int, overflow: Overflow) -> dict[str, Any]:
    """Cycles of one candidate with one word in each, for the core that has only this operator."""
    rng = np.random.default_rng(seed)
    bits, low = candidate.bits, -(1 << candidate.bits - 1) if signed else 0
    width = Accumulator().width(candidate.operator)
    x = rng.integers(low, low + (1 << bits), 400)
    w = rng.choice(_weights(candidate), 400)
    terms = sum(CORES[candidate.operator](x, w, np.ones_like(x), candidate, signed))
    program: dict[str, list[int]] = {name: [] for name in ("valid", "first", "x", "w", "expected")}
    total = 0
    for i in range(len(x)):
        first = i % 37 == 0
        before = np.array(0 if first else total)
        total = int(accumulate(np.stack([before, np.asarray(terms)[i]]), width, overflow))
        code = int(weight_codes(candidate.operator, w[i : i + 1], bits)[0])
        for name, value in zip(program, (1, int(first), int(x[i]) & ((1 << bits) - 1), code, total), strict=True):
            program[name].append(value)
    return program | {"short": width, "long": width}


def packed_program(candidate: Candidate, signed: bool, seed: int, length: int = 45) -> tuple[dict[str, Any], int]:
    """Sums of extreme words, packed into cycles, that saturate in an accumulator of few bits.

    Each ends at what `core_sums` has for a layer of the same words. Returns the program, and after how many cycles the
    accumulator would be another if it were clipped after each term.
    """
    rng = np.random.default_rng(seed)
    bits, low = candidate.bits, -(1 << candidate.bits - 1) if signed else 0
    width = 2 * bits + 1 if candidate.operator == "typical" else bits + 2
    x = rng.choice([low, low + 1, low + (1 << bits) - 2, low + (1 << bits) - 1], (8, length))
    w = rng.choice(_corners(_weights(candidate)), (8, length))
    layer = IntegerLayer(candidate, nn.Linear(length, len(w)), x, w, signed, torch.ones(len(w)))
    sums = np.diagonal(core_sums(layer, "saturate", width))
    parallel = lanes(bits)
    codes = weight_codes(candidate.operator, w, bits)
    x, w, codes = (np.pad(a, ((0, 0), (0, -length % parallel))) for a in (x, w, codes))
    terms = [np.broadcast_to(t, x.shape) for t in CORES[candidate.operator](x, w, np.ones_like(x), candidate, signed)]
    in_order = np.stack(terms, -1).reshape(len(x), -1)
    in_order[:, length * len(terms) :] = 0
    at_once = parallel * len(terms)
    names = ("operation", "precision", "signed_x", "wide", "valid", "first", "x", "w", "expected")
    program: dict[str, list[int]] = {name: [] for name in names}
    constant = (OPERATIONS.index(candidate.operator), PRECISIONS.index(bits), int(signed), 0, 1)
    different = 0
    for row in range(len(x)):
        packed_x = pack(x[row].reshape(-1, parallel), bits, bits)
        packed_w = pack(codes[row].reshape(-1, parallel), bits, 1 if candidate.operator == "binary_connect" else bits)
        for cycle in range(len(packed_x)):
            before = in_order[row, : (cycle + 1) * at_once]
            total = int(accumulate(before, width, "saturate", at_once))
            different += total != int(accumulate(before, width, "saturate"))
            _append(program, *constant, int(cycle == 0), int(packed_x[cycle]), int(packed_w[cycle]), total)
        assert total == sums[row]
    return program | {"short": width, "long": LONG}, different


def _append(program: dict[str, list[int]], *values: int) -> None:
    for name, value in zip(program, values, strict=True):
        program[name].append(value)


def _weights(candidate: Candidate) -> Integers:
    half = 1 << candidate.bits - 1
    if candidate.operator == "binary_connect":
        return np.array([-1, 1])
    if candidate.operator == "multiplication_free":
        return np.array([s * (2 * m + 1) for s in (-1, 1) for m in range(half)])
    return np.arange(-half, half)


def _corners(words: Integers) -> list[int]:
    """Both ends, and those around 0."""
    middle = [int(w) for w in words if abs(int(w)) <= 1]
    return sorted({int(words[0]), int(words[1]), *middle, int(words[-2]), int(words[-1])})
