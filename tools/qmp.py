#!/usr/bin/env python3
"""Speaks with a running QEMU: tools/qmp.py SOCKET COMMAND [JSON] [COMMAND [JSON]]...

A COMMAND is one of QMP's; `event:NAME` waits for an event instead, for ten minutes at most. Ends with 1 where QEMU refuses one.
"""
import json
import socket
import sys

WITHIN = 600


def main(path, words):
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(WITHIN)
        line.connect(path)
        stream = line.makefile("rw")
        json.loads(stream.readline())
        seen = []

        def ask(command, arguments):
            stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
            stream.flush()
            while True:
                answer = json.loads(stream.readline())
                if "event" in answer:
                    seen.append(answer["event"])
                elif "error" in answer:
                    sys.exit(f"qmp.py: {command}: {answer['error']['desc']}")
                else:
                    return answer["return"]

        def wait(name):
            while name not in seen:
                answer = json.loads(stream.readline())
                if "event" in answer:
                    seen.append(answer["event"])

        ask("qmp_capabilities", {})
        at = 0
        while at < len(words):
            command, arguments = words[at], {}
            at += 1
            if at < len(words) and words[at].startswith("{"):
                arguments = json.loads(words[at])
                at += 1
            if command.startswith("event:"):
                wait(command.removeprefix("event:"))
            else:
                ask(command, arguments)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2:])
