#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""check_pandas.py FILE: the run file of record_fixture.h as h5py and pandas see it."""
import sys

import h5py
import pandas as pd

with h5py.File(sys.argv[1], "r") as f:
    assert f.attrs["schema_version"] == 3
    summary = pd.DataFrame(f["summary"][()])
    trials = pd.DataFrame(f["trials"][()])
    assert list(summary["stack"]) == [b"base", b"fast[block_size=16]"] * 2
    assert list(summary["batch_size"]) == [1, 1, 8, 8]
    assert summary["host"][0].decode() == "h\u00f6st"
    assert summary["status"][2] == b"out of memory"
    fast = summary.iloc[1]
    assert fast["output_throughput_lo"] <= fast["output_throughput"] <= fast["output_throughput_hi"]
    assert fast["verdict"] == b"faster" and 1.19 < fast["speedup"] < 1.21
    assert len(trials) == 24 and trials["round"].max() == 5
    tokens = pd.DataFrame(f["cells/00000000000000a1/tokens"][()])
    assert len(tokens) == 3000 and tokens["round"].nunique() == 6
    phases = pd.DataFrame(f["cells/00000000000000a1/phases"][()])
    assert list(phases["n_steps"]) == [2] * 6 and list(phases["counted_flops"]) == [8] * 6
    assert phases["perf_instructions"].isna().all()
    finish = f["cells/00000000000000a1/requests"].dtype["finish"]
    assert h5py.check_enum_dtype(finish) == {"length": 0, "eos": 1, "context": 2}
    assert f["config/text"][()].decode().startswith("# Which is faster?")

    def has_units(name, item):
        if isinstance(item, h5py.Dataset):
            assert "units" in item.attrs, name
            if item.dtype.names:
                assert len(item.attrs["units"]) == len(item.dtype.names), name

    f.visititems(has_units)
    units = dict(zip(f["summary"].dtype.names, f["summary"].attrs["units"]))
    assert units["ttft_p99"] == b"ms" and units["kv_used_peak_hi"] == b"bytes"
