"""What the PTX of a kernel says about rounding, and what its machine code needs of a device."""

from __future__ import annotations

import re
from typing import NamedTuple

from cuda.bindings import nvjitlink

MAX_PARAMETER_BYTES = 4096  # of a kernel's arguments, on every device and driver
_REGISTERS_OF_MULTIPROCESSOR = 1 << 16  # compute capability 7.5 to 12.0
_REGISTER_UNIT = 8  # registers of a thread are given out in such units
_INSTRUCTION = re.compile(r"(?:@!?%p\d+\s+)?((?:fma|mad|mul|add|sub|neg|mov)\.\S*)\s+(.*);")


def list_inexact_fusions(ptx: str) -> list[str]:
    """Return instructions that add to a product of floats without rounding it, or may do so.

    NVVM fuses `a * b + c` itself, and ptxas fuses what NVVM left unless it says `.rn`. Where one
    factor is a power of two the product is exact, and fusing changes nothing.
    """
    fusions = []
    for function in re.split(r"^}", ptx, flags=re.MULTILINE):
        instructions = [
            (operation, re.split(r",\s*", operands))
            for operation, operands in map(_parse, function.splitlines())
            if operation.endswith((".f32", ".f64"))
        ]
        products = _find_products(instructions)
        for operation, (result, *operands) in instructions:
            kind = operation.partition(".")[0]
            fused = kind in ("fma", "mad") and not any(map(_is_power_of_two, operands[:2]))
            left = kind in ("add", "sub") and ".rn" not in operation and products & {*operands}
            if fused or left:
                fusions.append(f"{operation} {', '.join([result, *operands])}")
    return fusions


def _parse(line: str) -> tuple[str, str]:
    match = _INSTRUCTION.fullmatch(line.strip())
    return (match[1], match[2].strip()) if match else ("", "")


def _find_products(instructions: list[tuple[str, list[str]]]) -> set[str]:
    """Return the registers that hold an unrounded, inexact product, moved or negated or not."""
    products: set[str] = set()
    n_before = -1
    while n_before < len(products):  # a loop's registers are read before the lines that set them
        n_before = len(products)
        for operation, (result, *operands) in instructions:
            is_product = operation.startswith("mul.f") and not any(map(_is_power_of_two, operands))
            is_copy = operation.startswith(("mov.", "neg.")) and operands[0] in products
            if is_product or is_copy:
                products.add(result)
    return products


def _is_power_of_two(operand: str) -> bool:
    """Return whether an operand is a constant such as 0d40F0000000000000 (65,536)."""
    match = re.fullmatch(r"0([df])([0-9A-F]+)", operand)
    if not match:
        return False
    bits, n_fraction_bits = int(match[2], 16), {"d": 52, "f": 23}[match[1]]
    exponent = bits >> n_fraction_bits
    return exponent > 0 and bits & ((1 << n_fraction_bits) - 1) == 0


class Usage(NamedTuple):
    """What a thread of a kernel uses."""

    registers: int
    memory_bytes: int  # of its own: registers that were spilled, arrays

    def count_blocks(self, n_threads: int) -> int:
        """Return how many blocks of so many threads a multiprocessor has registers for."""
        registers = -(-self.registers // _REGISTER_UNIT) * _REGISTER_UNIT
        return _REGISTERS_OF_MULTIPROCESSOR // (registers * n_threads)


def measure(ptx: str, capability: tuple[int, int]) -> Usage:
    """Compile PTX for a device that is not there, and return what ptxas says of it."""
    options = ["-arch=sm_{}{}".format(*capability), "-verbose"]
    linker = nvjitlink.create(len(options), options)
    try:
        text = ptx.encode()
        nvjitlink.add_data(linker, nvjitlink.InputType.PTX, text, len(text), "kernel")
        nvjitlink.complete(linker)
        log = bytearray(nvjitlink.get_info_log_size(linker))
        nvjitlink.get_info_log(linker, log)
    finally:
        nvjitlink.destroy(linker)
    registers = map(int, re.findall(r"Used (\d+) registers", log.decode()))
    memory = re.findall(r"(\d+) bytes (?:stack frame|spill stores|spill loads)", log.decode())
    return Usage(max(registers), sum(map(int, memory)))


def count_parameter_bytes(ptx: str) -> int:
    """Return the bytes of the kernel's parameters, without what aligns them."""
    (entry,) = re.findall(r"\.entry [^(]*\(([^)]*)\)", ptx)
    sizes = re.findall(r"\.param \.\w(\d+) \S+?(?:,|\s|$)", entry)
    assert len(sizes) == entry.count(".param ")
    return sum(map(int, sizes)) // 8
