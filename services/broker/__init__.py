"""A broker to practise on: the subset of Alpaca's trading API that its unmodified client needs, on this machine, backed by the simulated
exchange (quant.trading.exchange). It fails on demand, and keeps a log of its own of what it took.
"""
