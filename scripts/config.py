#!/usr/bin/python3
"""Print the SPDK JSON configuration that run.sh and demo.sh start with: AIO base and spare, Remap0, NVMe/TCP."""

import argparse
import json


def call(method, **params):
    return {"method": method, "params": params}


def aio(name, filename, uuid, block_size):
    return call("bdev_aio_create", name=name, filename=filename, block_size=block_size, uuid=uuid)


def faulty(name, base_bdev, blocks, stride):
    """A fault bdev that fails every stride-th of the first blocks, on writes and on reads.

    Not the very first ones: whoever attaches the bdev reads those, in search of partitions and volumes.
    """
    first = stride // 2

    def inject(op, error):
        return call("bdev_fault_inject", name=name, lba=first, num_blocks=blocks - first, stride=stride, op=op, error=error)
    return [call("bdev_fault_create", name=name, base_bdev=base_bdev), inject("write", "write_fault"), inject("read", "read_error")]


def export(nqn, bdev_name, port):
    listen = {"trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": str(port)}
    return [
        call("nvmf_create_subsystem", nqn=nqn, allow_any_host=True, serial_number="BDEVREMAP"),
        call("nvmf_subsystem_add_ns", nqn=nqn, namespace={"bdev_name": bdev_name}),
        call("nvmf_subsystem_add_listener", nqn=nqn, listen_address=listen),
    ]


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--base", required=True, help="file or device of the base")
    p.add_argument("--base-uuid", required=True)
    p.add_argument("--spare", required=True, help="file or device of the spare")
    p.add_argument("--spare-uuid", required=True)
    p.add_argument("--block-size", type=int, default=4096, help="bytes")
    p.add_argument("--export", metavar="NQN", help="export Remap0 as this subsystem")
    p.add_argument("--port", type=int, default=4420, help="TCP port on 127.0.0.1")
    p.add_argument("--fault-blocks", type=int, default=0, help="put bad blocks among the first so many blocks of the base")
    p.add_argument("--fault-stride", type=int, default=1, help="one bad block in so many")
    p.add_argument("--plain", metavar="FILE", help="a second base with the same bad blocks, exported without a Remap bdev")
    p.add_argument("--plain-export", metavar="NQN")
    args = p.parse_args()

    bdev = [aio("Base0", args.base, args.base_uuid, args.block_size)]
    base = "Base0"
    if args.fault_blocks:
        bdev += faulty("Fault0", "Base0", args.fault_blocks, args.fault_stride)
        base = "Fault0"
    bdev.append(aio("Spare0", args.spare, args.spare_uuid, args.block_size))
    bdev.append(call("bdev_remap_create", name="Remap0", base_bdev=base, spare_bdev="Spare0"))

    nvmf = []
    if args.export:
        nvmf = [call("nvmf_create_transport", trtype="TCP")] + export(args.export, "Remap0", args.port)
    if args.plain:
        bdev.append(aio("Plain0", args.plain, None, args.block_size))
        del bdev[-1]["params"]["uuid"]
        bdev += faulty("PlainFault0", "Plain0", args.fault_blocks, args.fault_stride)
        nvmf += export(args.plain_export, "PlainFault0", args.port)

    subsystems = [{"subsystem": "bdev", "config": bdev}]
    if nvmf:
        subsystems.append({"subsystem": "nvmf", "config": nvmf})
    print(json.dumps({"subsystems": subsystems}, indent=2))


if __name__ == "__main__":
    main()
