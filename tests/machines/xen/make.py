"""Makes an XVA as XenServer would, of raw images: make.py OUT SUM RAW... with SUM checksum or xxhash.

By another program than the one under test, on purpose: other names of objects, spaces in the document, types around values,
Python's tar and SHA-1, and XXH64 in its own words.
"""

import hashlib, io, sys, tarfile

MIB = 1 << 20
M = (1 << 64) - 1
P = [11400714785074694791, 14029467366897019727, 1609587929392839161, 9650029242287828579, 2870177450012600261]


def rotl(x, n):
    return ((x << n) | (x >> (64 - n))) & M


def step(acc, lane):
    return rotl((acc + lane * P[1]) & M, 31) * P[0] & M


def xxh64(data):
    n, at = len(data), 0
    if n >= 32:
        v = [(P[0] + P[1]) & M, P[1], 0, -P[0] & M]
        lanes = memoryview(data)[: n // 32 * 32].cast("Q")
        for i in range(0, len(lanes), 4):
            for k in range(4):
                v[k] = step(v[k], lanes[i + k])
        acc = (rotl(v[0], 1) + rotl(v[1], 7) + rotl(v[2], 12) + rotl(v[3], 18)) & M
        for k in range(4):
            acc = ((acc ^ step(0, v[k])) * P[0] + P[3]) & M
        at = n // 32 * 32
    else:
        acc = P[4]
    acc = (acc + n) & M
    while at + 8 <= n:
        acc = (rotl(acc ^ step(0, int.from_bytes(data[at : at + 8], "little")), 27) * P[0] + P[3]) & M
        at += 8
    if at + 4 <= n:
        acc = (rotl(acc ^ (int.from_bytes(data[at : at + 4], "little") * P[0] & M), 23) * P[1] + P[2]) & M
        at += 4
    while at < n:
        acc = rotl(acc ^ (data[at] * P[4] & M), 11) * P[0] & M
        at += 1
    for shift, prime in ((33, P[1]), (29, P[2])):
        acc = (acc ^ (acc >> shift)) * prime & M
    return acc ^ (acc >> 32)


def value(x):
    if isinstance(x, bool):
        return f"<value><boolean>{int(x)}</boolean></value>"
    if isinstance(x, int):
        return f"<value><string>{x}</string></value>"
    if isinstance(x, dict):
        return "<value><struct>" + "\n".join(
            f"<member><name>{k}</name>{value(v)}</member>" for k, v in x.items()
        ) + "</struct></value>"
    if isinstance(x, list):
        return "<value><array><data>" + "\n ".join(map(value, x)) + "</data></array></value>"
    return f"<value>{x}</value>"


out, kind, raws = sys.argv[1], sys.argv[2], sys.argv[3:]
disks = [(f"Ref:{17 + 90 * n}", open(raw, "rb").read()) for n, raw in enumerate(raws)]
objects = [
    {"class": "VM", "id": "Ref:0", "snapshot": {
        "uuid": "7b10d7af-b932-4c66-b2c3-3996152ec465", "name_label": "db 01", "name_description": "the &lt;shop&gt;",
        "is_a_snapshot": False, "memory_static_max": 2 << 30, "memory_dynamic_max": 2 << 30, "memory_dynamic_min": 1 << 30,
        "VCPUs_max": 4, "VCPUs_at_startup": 4, "HVM_boot_policy": "BIOS order", "tags": ["prod"], "PCI_bus": "0/1",
        "HVM_boot_params": {"order": "dc", "firmware": "uefi"},
        "platform": {"secureboot": "true", "cores-per-socket": 2, "timeoffset": "7200", "strange": "yes"},
        "other_config": {"base_template_name": "Debian Bookworm 12"},
    }},
    {"class": "VM", "id": "Ref:90", "snapshot": {"name_label": "before", "is_a_snapshot": True, "memory_static_max": 1 << 30}},
    {"class": "network", "id": "Ref:5", "snapshot": {"name_label": "LAN", "MTU": 9000}},
    {"class": "VIF", "id": "Ref:6", "snapshot": {"VM": "Ref:0", "device": "1", "MAC": "00:50:56:00:12:A1", "network": "Ref:5"}},
    {"class": "VIF", "id": "Ref:7", "snapshot": {"VM": "Ref:0", "device": "0", "MAC": "00:50:56:00:12:a0", "network": "Ref:5"}},
    {"class": "VBD", "id": "Ref:8", "snapshot": {"VM": "Ref:0", "type": "CD", "empty": True, "userdevice": "3"}},
]
# The last disk of the archive is the first of the machine.
for n, (ref, data) in enumerate(disks):
    place = len(disks) - 1 - n
    objects.append({"class": "VDI", "id": ref, "snapshot": {"virtual_size": len(data), "sm_config": {"virtual_size": 1}}})
    objects.append({"class": "VBD", "id": f"Ref:{300 + n}", "snapshot": {"VM": "Ref:0", "VDI": ref, "type": "Disk", "userdevice": place}})
version = {"hostname": "h", "product_brand": "XCP-ng", "xapi_major": 1, "xapi_minor": 20, "export_vsn": 2}
with tarfile.open(out, "w", format=tarfile.USTAR_FORMAT) as tar:
    def add(name, data):
        info = tarfile.TarInfo(name)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))

    def block(name, data):
        add(name, data)
        digest = hashlib.sha1(data).hexdigest() if kind == "checksum" else f"{xxh64(data):016X}"
        add(f"{name}.{kind}", digest.encode())

    add("ova.xml", value({"version": version, "objects": objects}).encode())
    for ref, data in disks:
        count, late = -(-len(data) // MIB), 0
        for number in range(count):
            part = data[number * MIB : (number + 1) * MIB]
            if number in (0, count - 1) or any(part):
                block(f"{ref}/{number + late:08}", part)
            elif number == 3:
                # Something for the firewall: from here on numbers are one too high.
                block(f"{ref}/{number:08}", b"")
                late = 1
