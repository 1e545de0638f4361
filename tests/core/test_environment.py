"""What a record says of the machine that its run was on."""

import platform

import torch

from dihal_bench.core import environment


def test_the_processor_is_told_by_its_arithmetic(monkeypatch):
    def told():
        return environment.describe(device="cpu", seed=0)["processor"]

    has = {"cpu_name": "Some Xeon", "avx2": True, "amx_bf16": True, "amx_fp16": False}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has, raising=False)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert told() == "Some Xeon AVX512 amx_bf16"
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert told() == f"{platform.machine()} AVX512"


def test_an_accelerator_is_told_by_its_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Some GPU {device.index}")
    assert environment.describe(device="cuda:1", seed=0)["processor"] == "Some GPU 1"
    monkeypatch.delattr(torch.mps, "get_device_name", raising=False)
    assert environment.describe(device="mps", seed=0)["processor"] == "mps"
