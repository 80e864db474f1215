"""Writes the code of the plan.image in a plan (argv[1]) to a file (argv[2])."""

import re
import sys

plan = open(sys.argv[1]).read()
(code,) = re.findall(r'plan\.image .*code = dense<"0x([0-9A-F]+)">', plan)
open(sys.argv[2], "wb").write(bytes.fromhex(code))
