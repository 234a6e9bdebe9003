"""Sampling inside SRAM: a behavioural model of Metropolis-Hastings on a macro with its own DACs, ADCs and random bits.

After MC2RAM (arXiv 2003.02629), of which only the abstract's figures are used; `search.sampling.array` says what the
macro is taken to compute.
"""
