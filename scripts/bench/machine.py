"""The machine that measures, in a line."""

import os
import pathlib
import platform
import re


def describe(spdk_version, huge):
    cpuinfo = pathlib.Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.*)$", cpuinfo, re.MULTILINE)
    cache = pathlib.Path("/sys/devices/system/cpu/cpu0/cache/index2/size")
    virtual = re.search(r"^flags\s*:.*\bhypervisor\b", cpuinfo, re.MULTILINE)
    return "%s, %d cores%s%s, Linux %s, %s, SPDK %s" % (
        model.group(1).strip() if model else platform.machine(), os.cpu_count(), " of a virtual machine" if virtual else "",
        " with %siB of second-level cache each" % cache.read_text().strip() if cache.exists() else "",
        ".".join(platform.release().split(".")[:2]), "hugepages" if huge else "no hugepages", spdk_version)
