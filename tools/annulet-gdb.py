"""Fibers in gdb: lists them, and shows where each stands, of a live process or of a core file.

    (gdb) source /usr/local/share/annulet/annulet-gdb.py
    (gdb) annulet fibers
    (gdb) annulet bt 7

Reads memory only: nothing in the process is called or changed, so core files serve as well. What it needs is
annulet's debug information, gdb 12 or newer with Python, and x86-64.

A fiber that does not run stands where control_block::context points, at what jump_fcontext saved. While its
frames are printed an unwinder pretends that it had called the selected thread's innermost frame; gdb
does the rest, and numbers its frames from 1 or more, which is mended in the text.
"""

import bisect
import collections
import contextlib
import os
import re
import struct
import time

import gdb
import gdb.unwinder

# What jump_fcontext saves, in this order, from 8 bytes behind the context on; then the stack goes on.
SAVED = ("r12", "r13", "r14", "r15", "rbx", "rbp", "rip")
SAVED_SIZE = 64
WORD = 8
ADDRESSES = 1 << 64  # what is computed from a broken link may lie before them

CURRENT = "annulet::detail::scheduler::current_"
ALL_FIBERS_HOOK = "annulet::detail::list_hook<annulet::detail::all_fibers_tag>"
NO_DESCRIPTOR = -1
BOTTOM_FRAME = "annulet::detail::scheduler::enter ("
NANOSECONDS = 1e9
KIB = 1024
LARGEST_STACK = 1 << 30
RED_ZONE = 128  # below the stack pointer, and in use all the same


# --- Reading structures: their layout comes from the debug information, their bytes in one piece ---


def type_named(name):
    try:
        return gdb.lookup_type(name)
    except gdb.error:
        raise gdb.GdbError(
            "no debug information of annulet here: the program is without it, was stripped, "
            "or was built without -g"
        ) from None


def find_member(of, name):
    """(offset, type) of a member or base class, also one that a base class has; None where there is none."""
    for field in of.fields():
        if not hasattr(field, "bitpos"):
            continue  # static
        kind = field.type.strip_typedefs()
        if field.name == name:
            return field.bitpos // 8, kind
        inner = find_member(kind, name) if field.is_base_class else None
        if inner:
            return field.bitpos // 8 + inner[0], inner[1]
    return None


class Record:
    """Some members of a type, read at once. Each is given as the path to it."""

    def __init__(self, type_name, **paths):
        self.type = type_named(type_name)
        self.members = {name: self._place(path) for name, path in paths.items()}
        self.size = max(offset + kind.sizeof for offset, kind in self.members.values())
        self.values = collections.namedtuple("values", self.members)

    def _place(self, path):
        at, kind = 0, self.type
        for name in path:
            found = find_member(kind, name)
            if found is None:
                raise gdb.GdbError(f"{kind} has no {name}: this script is for another version of annulet")
            at, kind = at + found[0], found[1]
        return at, kind

    def offset(self, name):
        return self.members[name][0]

    def read(self, address):
        content = read_memory(address, self.size)
        return self.values(*(value_of(content, at, kind) for at, kind in self.members.values()))


def value_of(content, at, kind):
    piece = content[at : at + kind.sizeof]
    if kind.code == gdb.TYPE_CODE_ARRAY:
        return piece
    return int.from_bytes(piece, "little", signed=kind.code == gdb.TYPE_CODE_INT and kind.is_signed)


def read_memory(address, size):
    return gdb.selected_inferior().read_memory(address % ADDRESSES, size).tobytes()


def string_at(address):
    return gdb.Value(address).cast(gdb.lookup_type("char").pointer()).string("utf-8", "replace")


def printable(text):
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


class Layout:
    """What this program's debug information says of annulet's types."""

    def __init__(self):
        self.scheduler = Record(
            "annulet::detail::scheduler",
            first=("all_", "root_", "next_"),
            last=("all_", "root_", "prev_"),
            running=("running_",),
            about_now=("about_now_",),
        )
        self.fiber = Record(
            "annulet::detail::control_block",
            next=(ALL_FIBERS_HOOK, "next_"),
            prev=(ALL_FIBERS_HOOK, "prev_"),
            context=("context",),
            state=("state",),
            parked_on=("parked_on",),
            owner=("owner",),
            id=("id",),
            name=("name_", "_M_elems"),
            name_length=("name_length_",),
            place=("place", "_M_impl"),
            stack=("memory", "memory", "_M_ptr"),
            stack_size=("memory", "memory", "_M_extent", "_M_extent_value"),
        )
        self.waiter = Record("annulet::detail::waiter", what=("what_",), fd=("fd_",), since=("since_",))
        self.place = Record("std::source_location::__impl", file=("_M_file_name",), line=("_M_line",))
        states = type_named("annulet::detail::fiber_state").fields()
        self.states = {state.enumval: state.name.rpartition("::")[2] for state in states}


# --- Hubs and fibers ---


class Fiber:
    def __init__(self, hub, address, values):
        self.hub = hub
        self.address = address
        self.values = values
        self.state = hub.layout.states.get(values.state, "?")

    @property
    def id(self):
        return self.values.id

    def runs(self):
        """Whether its thread stands on its stack: it runs, or it parked last and waits for all."""
        return self.address == self.hub.running

    def has_begun(self):
        return self.values.context != (self.address & ~15) - SAVED_SIZE

    def stack_top(self):
        return self.values.stack + self.values.stack_size

    def in_use(self):
        """From where to where its stack is, as far as that is on it: else None."""
        if self.runs():
            begin = self.hub.stack_pointer - RED_ZONE
        elif self.state == "done":
            begin = self.address
        else:
            begin = self.values.context
        return (begin, self.stack_top()) if self.values.stack <= begin < self.stack_top() else None

    def describe(self):
        text = f"fiber {self.id}"
        if self.values.name_length:
            name = self.values.name[: self.values.name_length].decode("utf-8", "replace")
            text += f' "{printable(name)}"'
        stack = self.hub.stacks.used_by(self)
        return text + self.hub.place_text(self.values.place) + ": " + self._doing() + stack

    def _doing(self):
        if self.state == "ready" and not self.has_begun():
            return "ready, has not begun"
        if self.state != "parked":
            return self.state
        text = "parked"
        with contextlib.suppress(gdb.error):  # a waiter that cannot be read has nothing to tell
            waiter = self.hub.layout.waiter.read(self.values.parked_on)
            text += f" in {self.hub.string(waiter.what)}"
            if waiter.fd != NO_DESCRIPTOR:
                text += f", descriptor {waiter.fd},"
            text += self.hub.clock.time_since(waiter.since)
        return text + (", and the thread waits on its stack" if self.runs() else "")

    def saved_registers(self):
        """Of one that does not run."""
        context = self.values.context
        on_stack = self.values.stack <= context <= self.stack_top() - SAVED_SIZE
        if context == 0 or self.values.stack_size and not on_stack:
            raise gdb.GdbError(f"fiber {self.id} is said to stand at {context:#x}, which is not on its stack")
        words = struct.unpack(f"<{len(SAVED)}Q", read_memory(context + WORD, len(SAVED) * WORD))
        return dict(zip(SAVED, words), rsp=context + SAVED_SIZE)


class Clock:
    """What time it is in the process: now where it lives here, else the latest that any hub has seen."""

    def __init__(self):
        connection = gdb.selected_inferior().connection
        self.lives_here = connection is not None and connection.type == "native"
        self.latest = time.monotonic_ns() if self.lives_here else 0

    def saw(self, nanoseconds):
        self.latest = max(self.latest, nanoseconds)

    def time_since(self, nanoseconds):
        seconds = max(0, self.latest - nanoseconds) / NANOSECONDS
        return f" for {'' if self.lives_here else 'at least '}{seconds:.3f} s"


class Stacks:
    """How far stacks were used: of a process that lives here the kernel says which pages ever were, else what
    is in use."""

    def __init__(self, lives_here):
        self.page = os.sysconf("SC_PAGE_SIZE")
        self.map = None
        if lives_here:
            with contextlib.suppress(OSError):
                self.map = open(f"/proc/{gdb.selected_inferior().pid}/pagemap", "rb", buffering=0)

    def _touched(self, fiber):
        """The address of the lowest page that is in memory or was swapped out."""
        entry, at = 8, fiber.values.stack
        while at < fiber.stack_top():
            self.map.seek(at // self.page * entry)
            entries = self.map.read(min(fiber.stack_top() - at, 512 * self.page) // self.page * entry)
            found = re.search(rb"[\x40-\xff]", entries[entry - 1 :: entry])
            if found or not entries:
                return at + found.start() * self.page if found else None
            at += len(entries) // entry * self.page
        return None

    def used_by(self, fiber):
        if not 0 < fiber.values.stack_size <= LARGEST_STACK:
            return ""  # main's is not the hub's
        lowest = None
        if self.map:
            with contextlib.suppress(OSError):
                lowest = self._touched(fiber)
        at_least = "" if lowest else "at least "
        if not lowest and fiber.in_use():
            lowest = fiber.in_use()[0] // self.page * self.page
        if not lowest:
            return ""
        kibs = (fiber.stack_top() - lowest) // KIB
        return f"; stack used: {at_least}{kibs} of {fiber.values.stack_size // KIB} KiB"


class Hub:
    """A thread's fibers, as far as their list can be followed; what is wrong with it is in `broken`."""

    def __init__(self, layout, clock, stacks, thread, scheduler):
        self.layout = layout
        self.clock = clock
        self.stacks = stacks
        self.stack_pointer = stands_at(gdb.newest_frame())[0]  # the thread is the selected one
        self.thread = thread
        self.scheduler = scheduler
        self._strings = {}
        self._places = {}
        self.broken = None
        self.fibers = []  # that have not ended
        self.ended = []  # whose handles are still there
        try:
            values = layout.scheduler.read(scheduler)
            self.running = values.running
            clock.saw(values.about_now)
            self._walk(values)
        except gdb.MemoryError as error:
            self.broken = str(error)
        if self.broken is None and not any(fiber.runs() for fiber in self.fibers):
            self.broken = "the running fiber is not among them"

    def _walk(self, values):
        """Each link must have its counterpart, so the walk ends: none can be come to from two sides."""
        root = self.scheduler + self.layout.scheduler.offset("first")
        hook = self.layout.fiber.offset("next")
        previous, at = root, values.first
        while at != root:
            fiber = Fiber(self, at - hook, self.layout.fiber.read(at - hook))
            if fiber.values.prev != previous or fiber.values.owner != self.scheduler:
                self.broken = f"at {at:#x} is no fiber of this hub"
                return
            (self.ended if fiber.state == "done" else self.fibers).append(fiber)
            previous, at = at, fiber.values.next
        if values.last != previous:
            self.broken = "its two ends do not fit"

    def complaint(self):
        after = f"after fiber {self.fibers[-1].id}" if self.fibers else "from its beginning"
        text = f"thread {self.thread.num}: the list of fibers is broken {after}: {self.broken}. "
        if self.clock.lives_here:
            return text + "Program and symbols do not belong together, or it was stopped in mid-change"
        return text + "Program and core do not belong together, or gcore left stacks out (see annulet core)"

    def string(self, address):
        if address not in self._strings:
            self._strings[address] = printable(string_at(address))
        return self._strings[address]

    def place_text(self, address):
        if address not in self._places:
            self._places[address] = ""
            with contextlib.suppress(gdb.error):
                place = self.layout.place.read(address)
                self._places[address] = f" (spawned at {self.string(place.file)}:{place.line})"
        return self._places[address]

    def describe(self):
        counts = collections.Counter(fiber.state for fiber in self.fibers)
        kinds = ", ".join(f"{counts[state]} {state}" for state in ("running", "ready", "parked"))
        return f"thread {self.thread.num} (LWP {self.thread.ptid[1]}): {len(self.fibers)} fibers: {kinds}"


@contextlib.contextmanager
def selection_kept():
    thread, level = gdb.selected_thread(), gdb.selected_frame().level()
    try:
        yield
    finally:
        thread.switch()
        frame = gdb.newest_frame()
        while frame.level() < level:
            frame = frame.older()
        frame.select()  # without a word, as the command of that name would have


def read_hubs():
    """Of all threads; the selected thread's comes first."""
    if gdb.selected_thread() is None:
        raise gdb.GdbError("no process runs, and there is no core file")
    if gdb.selected_frame().architecture().name() != "i386:x86-64":
        raise gdb.GdbError("fibers are known on x86-64 only")
    layout, clock = Layout(), Clock()
    stacks = Stacks(clock.lives_here)
    hubs, seen = [], set()
    with selection_kept():
        for thread in sorted(gdb.selected_inferior().threads(), key=lambda thread: thread.ptid[1]):
            thread.switch()
            locals_of_thread = int(gdb.parse_and_eval("$fs_base"))
            if locals_of_thread in seen:
                continue  # a thread of io_uring's own, which has those of its maker
            seen.add(locals_of_thread)
            scheduler = int(gdb.parse_and_eval(f"'{CURRENT}'"))  # quoted, for frames that are not C++
            if scheduler:
                hubs.append(Hub(layout, clock, stacks, thread, scheduler))
    if not hubs:
        raise gdb.GdbError("no thread of this process has a hub")
    selected = gdb.selected_thread()
    return sorted(hubs, key=lambda hub: (hub.thread != selected, hub.thread.num))


def chosen_fiber(hubs, which):
    """By `7`, of the selected thread's hub or of the only one that has it; or by `2.7`, of that thread's."""
    found = re.fullmatch(r"(?:(\d+)\.)?(\d+)", which)
    if not found:
        raise gdb.GdbError(f"annulet bt wants the id of a fiber, or THREAD.ID, or all, and not '{which}'")
    number, wanted = found[1] and int(found[1]), int(found[2])
    asked = [hub for hub in hubs if number in (None, hub.thread.num)]
    if not asked:
        raise gdb.GdbError(f"thread {number} has no hub")
    fibers = [fiber for hub in asked for fiber in hub.fibers if fiber.id == wanted]
    if not fibers:
        complaints = [hub.complaint() for hub in asked if hub.broken]
        raise gdb.GdbError("\n".join([f"there is no fiber {which}", *complaints]))
    if len(fibers) > 1 and fibers[0].hub.thread != gdb.selected_thread():
        names = " and ".join(f"{fiber.hub.thread.num}.{wanted}" for fiber in fibers)
        raise gdb.GdbError(f"several hubs have a fiber {wanted}; say which: {names}")
    return fibers[0]


# --- Frames ---


class FrameId:
    def __init__(self, sp, pc):
        self.sp = sp
        self.pc = pc


class FiberUnwinder(gdb.unwinder.Unwinder):
    """While a fiber is set, its saved registers are the caller's of the selected thread's innermost frame."""

    def __init__(self):
        super().__init__("annulet fiber")
        self.saved = None
        self.innermost = None  # rsp and rip, by which that frame is known

    def __call__(self, pending):
        if self.saved is None or stands_at(pending) != self.innermost:
            return None
        word = pending.architecture().integer_type(64, False)
        # As if it lay on the fiber's stack, inside the frame that comes out of it: gdb takes an outer frame
        # that lies lower for corrupt.
        below = gdb.Value(self.saved["rsp"] - SAVED_SIZE).cast(word)
        frame = pending.create_unwind_info(FrameId(below, pending.read_register("rip")))
        for register, value in self.saved.items():
            frame.add_saved_register(register, gdb.Value(value).cast(word))
        return frame

    @contextlib.contextmanager
    def standing_in(self, saved):
        """Yields how many frames come before the fiber's."""
        self.innermost = stands_at(gdb.newest_frame())
        self.saved = saved
        try:
            gdb.invalidate_cached_frames()
            frame, before = gdb.newest_frame(), 0
            while frame is not None and stands_at(frame) != (saved["rsp"], saved["rip"]):
                frame, before = frame.older(), before + 1
            if frame is None:
                raise gdb.GdbError("gdb does not come from the thread's frame to the fiber's")
            yield before
        finally:
            self.saved = None
            gdb.invalidate_cached_frames()


def stands_at(frame):
    return int(frame.read_register("rsp")), int(frame.read_register("rip"))


unwinder = FiberUnwinder()
gdb.unwinder.register_unwinder(None, unwinder, replace=True)


def frames_text(how, before=0):
    """gdb's own text, without the first frames and what is below the fiber's bottom one."""
    text = gdb.execute(f"backtrace {how}", to_string=True)
    kept = []
    for frame in re.split(r"^(?=#\d)", text, flags=re.MULTILINE):
        found = re.match(r"#(\d+) *", frame)
        if found and int(found[1]) >= before:
            kept.append(f"#{int(found[1]) - before:<3}" + frame[found.end() :])
            if BOTTOM_FRAME in frame.partition("\n")[0]:
                break
    return "".join(kept)


def backtrace(fiber, how):
    with selection_kept():
        fiber.hub.thread.switch()
        if fiber.runs():
            return frames_text(how)
        if not fiber.has_begun():
            return "it has not begun\n"
        with unwinder.standing_in(fiber.saved_registers()) as before:
            return frames_text(how, before)


# --- Core files ---


def stack_ranges(hubs):
    """(begin, end) of what is in use of each stack."""
    return [used for hub in hubs for fiber in hub.fibers + hub.ended if (used := fiber.in_use())]


def segments_of(core):
    """(address, size, offset in the file) of each piece of memory in an ELF file, by address."""
    header = core.read(64)
    table, entry_size, count = struct.unpack_from("<Q14x2H", header, 32)
    core.seek(table)
    entries = (struct.unpack_from("<2I4Q", core.read(entry_size)) for _ in range(count))
    is_load = 1
    return sorted((address, size, at) for kind, _, at, address, _, size in entries if kind == is_load)


def fill_in(path, ranges):
    """Writes these pieces of memory to where a core file has room for them; says how many."""
    with open(path, "r+b") as core:
        segments = segments_of(core)
        written = 0
        for begin, end in ranges:
            found = bisect.bisect_right(segments, (begin, float("inf"))) - 1
            address, size, at = segments[found] if found >= 0 else (0, 0, 0)
            if end <= address + size:
                core.seek(at + begin - address)
                core.write(read_memory(begin, end - begin))
                written += 1
        return written


# --- The commands ---


class AnnuletCommand(gdb.Command):
    """A command whose errors are told in words."""

    def __init__(self, name, kind, **options):
        super().__init__(f"annulet {name}".strip(), kind, **options)

    def invoke(self, argument, from_tty):
        try:
            self.run(gdb.string_to_argv(argument))
        except gdb.GdbError:
            raise
        except (gdb.error, OSError, RuntimeError) as error:
            raise gdb.GdbError(" ".join(str(error).split())) from None


class Annulet(gdb.Command):
    """What annulet's fibers do: annulet fibers, annulet bt, annulet core."""

    def __init__(self):
        super().__init__("annulet", gdb.COMMAND_STACK, prefix=True)


class Fibers(AnnuletCommand):
    """annulet fibers: lists the fibers of all hubs, a line each.

    What each does, in which call it waits, on which descriptor, for how long, and where it was spawned.
    `pipe annulet fibers | grep accept` picks some of them."""

    def run(self, arguments):
        if arguments:
            raise gdb.GdbError("annulet fibers takes no arguments; `pipe annulet fibers | grep ...` does")
        hubs = read_hubs()
        lines = []
        for hub in hubs:
            lines.append(hub.describe())
            lines.extend(f"  {fiber.describe()}" for fiber in hub.fibers)
        gdb.write("\n".join(lines) + "\n")
        complaints = [hub.complaint() for hub in hubs if hub.broken]
        if complaints:
            raise gdb.GdbError("\n".join(complaints))


class Backtrace(AnnuletCommand):
    """annulet bt ID [full], annulet bt all [full]: where a fiber stands, or each of them.

    Ids belong to a hub: the selected thread's is asked first. 2.7 is fiber 7 of thread 2.
    With full the local variables are shown as well."""

    def run(self, arguments):
        which, *how = arguments or [""]
        if how not in ([], ["full"]):
            raise gdb.GdbError(f"annulet bt takes an id and perhaps 'full', and not '{' '.join(how)}'")
        hubs = read_hubs()
        everyone = [fiber for hub in hubs for fiber in hub.fibers]
        for fiber in everyone if which == "all" else [chosen_fiber(hubs, which)]:
            gdb.write(f"{fiber.describe()}\n{backtrace(fiber, ' '.join(how))}")
            if which == "all":
                gdb.write("\n")


class Core(AnnuletCommand):
    """annulet core FILE: writes a core file as gcore does, and the fibers' stacks with it.

    gcore leaves out what lies behind a guard page in the same mapping. The kernel's own core files are
    complete."""

    def run(self, arguments):
        if len(arguments) != 1:
            raise gdb.GdbError("annulet core wants the name of the file to write")
        hubs = read_hubs()
        path = os.path.expanduser(arguments[0])
        gdb.execute(f"gcore {path}")
        ranges = stack_ranges(hubs)
        written = fill_in(path, ranges)
        gdb.write(f"{written} of {len(ranges)} stacks of fibers are in it\n")
        complaints = [hub.complaint() for hub in hubs if hub.broken]
        if complaints:
            raise gdb.GdbError("\n".join(complaints))


Annulet()
Fibers("fibers", gdb.COMMAND_STATUS)
Backtrace("bt", gdb.COMMAND_STACK)
Core("core", gdb.COMMAND_FILES, completer_class=gdb.COMPLETE_FILENAME)
