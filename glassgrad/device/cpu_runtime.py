"""The CPU's native launcher: a thread pool and a loop over kernel launches, written as LLVM IR and compiled once.

One call runs a list of rows (a whole graph). A row is four words: kernel, arguments, count, and how many rows from here on do not depend
on each other. From their ranges 0..count the caller and the workers take pieces, ever smaller ones, by a shared counter; then come the
rows behind them.
Results do not depend on who takes which piece, since kernels write each output element from one gidx0 only.

The pool's protocol: `state` holds (epoch, open bit, number of workers inside). The caller fills the job in, opens a new epoch,
works itself, closes the epoch and waits for those inside to leave. A worker that comes late finds the epoch closed and nobody waits
for it, so a core taken by another process costs no more than its share. Workers spin shortly, then longer but giving way to other
processes, then sleep on a condition variable.
A second Python thread that finds the pool busy runs its rows alone.
"""
from __future__ import annotations

import ctypes
import os
import platform
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

CALL_WORDS = 7
SPINS = 2000                                  # about 30 us of spinning: longer than the gap between two rows
LINGERS = 8                                   # times as many in all before a worker sleeps and gives way: to be woken takes 50 us
# byte offsets in the pool; the words that different threads write stand in different cache lines
_STATE, _NEXT, _JOB, _BUSY, _SLEEPERS, _STOP, _LIVE, _SPIN, _MUTEX, _COND, POOL_BYTES = 0, 128, 256, 384, 512, 520, 528, 536, 640, 768, 1024

_PAUSE = {"x86_64": "llvm.x86.sse2.pause()", "AMD64": "llvm.x86.sse2.pause()", "aarch64": "llvm.aarch64.hint(i32 1)",
          "arm64": "llvm.aarch64.hint(i32 1)"}
_IMPORTS = ("pthread_create", "pthread_detach", "pthread_mutex_init", "pthread_mutex_lock", "pthread_mutex_unlock", "pthread_cond_init",
            "pthread_cond_wait", "pthread_cond_signal", "pthread_cond_broadcast", "pthread_getspecific", "pthread_setspecific",
            "sched_yield", "posix_memalign", "free")


def source() -> str:
    """The runtime as LLVM IR text."""
    pause = _PAUSE.get(platform.machine())
    declares = "\n".join(f"declare {sig}" for sig in (
        "i32 @pthread_create(ptr, ptr, ptr, ptr)", "i32 @pthread_detach(i64)", "i32 @pthread_mutex_init(ptr, ptr)",
        "i32 @pthread_mutex_lock(ptr)", "i32 @pthread_mutex_unlock(ptr)", "i32 @pthread_cond_init(ptr, ptr)",
        "i32 @pthread_cond_wait(ptr, ptr)", "i32 @pthread_cond_signal(ptr)", "i32 @pthread_cond_broadcast(ptr)",
        "ptr @pthread_getspecific(i32)", "i32 @pthread_setspecific(i32, ptr)", "i32 @sched_yield()", "i32 @posix_memalign(ptr, i64, i64)",
        "void @free(ptr)", *([f"void @{pause.replace('i32 1', 'i32')}"] if pause else [])))
    fields = {"STATE": _STATE, "NEXT": _NEXT, "ROWS": _JOB, "TOTAL": _JOB + 8, "PART": _JOB + 16, "LIMIT": _JOB + 24,
              "BUSY": _BUSY, "SLEEPERS": _SLEEPERS, "STOP": _STOP, "LIVE": _LIVE, "SPIN": _SPIN, "MUTEX": _MUTEX, "COND": _COND}
    text = _TEXT.replace("$PAUSE", f"call void @{pause}" if pause else "").replace("LINGERS", str(LINGERS))
    for name in sorted(fields, key=len, reverse=True):
        text = text.replace(f"@{name}(%pool)", f"getelementptr i8, ptr %pool, i64 {fields[name]}")
    return f"{declares}\n{text}"


_TEXT = """
; take pieces of the open job until none is left: each `part`-th of what is left, so that all are done at about the same time.
; A job is some rows that do not depend on each other; their ranges follow one another, and a piece lies in one of them.
define internal void @work(ptr %pool, ptr %rows, i64 %total, i64 %part) nounwind {
entry:
  %next = @NEXT(%pool)
  br label %look
look:
  %first = load atomic i64, ptr %next monotonic, align 8
  br label %take
take:
  %i = phi i64 [ %first, %look ], [ %now, %try ]
  %left = sub i64 %total, %i
  %some = icmp sgt i64 %left, 0
  br i1 %some, label %find, label %done
find:
  %r = phi i64 [ 0, %take ], [ %r1, %later ]
  %begin = phi i64 [ 0, %take ], [ %far, %later ]
  %row = getelementptr [4 x i64], ptr %rows, i64 %r
  %rc = getelementptr i64, ptr %row, i64 2
  %count = load i64, ptr %rc
  %far = add i64 %begin, %count
  %here = icmp slt i64 %i, %far
  br i1 %here, label %try, label %later
later:
  %r1 = add i64 %r, 1
  br label %find
try:
  %rest = sub i64 %far, %i
  %c0 = udiv i64 %left, %part
  %c1 = icmp eq i64 %c0, 0
  %c2 = select i1 %c1, i64 1, i64 %c0
  %c3 = icmp slt i64 %c2, %rest
  %size = select i1 %c3, i64 %c2, i64 %rest
  %end = add i64 %i, %size
  %got = cmpxchg ptr %next, i64 %i, i64 %end monotonic monotonic
  %now = extractvalue { i64, i1 } %got, 0
  %mine = extractvalue { i64, i1 } %got, 1
  br i1 %mine, label %run, label %take
run:
  %fn = load ptr, ptr %row
  %ra = getelementptr i64, ptr %row, i64 1
  %args = load ptr, ptr %ra
  %lo = sub i64 %i, %begin
  %hi = sub i64 %end, %begin
  call void %fn(ptr %args, ptr %args, i64 %lo, i64 %hi)
  br label %look
done:
  ret void
}

define ptr @glassgrad_worker(ptr %pool) nounwind {
entry:
  %state = @STATE(%pool)
  %stop = @STOP(%pool)
  %spinp = @SPIN(%pool)
  %sleepers = @SLEEPERS(%pool)
  %mutex = @MUTEX(%pool)
  %cond = @COND(%pool)
  %rowsp = @ROWS(%pool)
  %totalp = @TOTAL(%pool)
  %partp = @PART(%pool)
  %limitp = @LIMIT(%pool)
  %live = @LIVE(%pool)
  br label %idle
idle:                                     ; %last: the newest epoch this worker is done with
  %last = phi i64 [ 0, %entry ], [ %epoch, %leave ], [ %last, %awake ], [ %epoch, %closed ]
  br label %spin
spin:
  %n = phi i64 [ 0, %idle ], [ %n1, %relax ], [ %n, %try ]
  %s = load atomic i64, ptr %state acquire, align 8
  %epoch = lshr i64 %s, 17
  %new = icmp ne i64 %epoch, %last
  br i1 %new, label %look, label %wait
look:
  %openbit = and i64 %s, 65536
  %open = icmp ne i64 %openbit, 0
  %inside = and i64 %s, 65535
  %limit = load atomic i64, ptr %limitp monotonic, align 8
  %room = icmp slt i64 %inside, %limit
  %join = and i1 %open, %room
  br i1 %join, label %try, label %closed
closed:
  br label %idle
try:
  %s1 = add i64 %s, 1
  %got = cmpxchg ptr %state, i64 %s, i64 %s1 acq_rel monotonic
  %ok = extractvalue { i64, i1 } %got, 1
  br i1 %ok, label %job, label %spin
job:
  %rows = load ptr, ptr %rowsp
  %total = load i64, ptr %totalp
  %part = load i64, ptr %partp
  call void @work(ptr %pool, ptr %rows, i64 %total, i64 %part)
  br label %leave
leave:
  %was = atomicrmw sub ptr %state, i64 1 release
  br label %idle
wait:
  %st = load atomic i64, ptr %stop monotonic, align 8
  %quit = icmp ne i64 %st, 0
  br i1 %quit, label %out, label %go_on
go_on:
  %n1 = add i64 %n, 1
  %spins = load atomic i64, ptr %spinp monotonic, align 8
  %more = icmp slt i64 %n, %spins
  br i1 %more, label %relax, label %linger
relax:
  $PAUSE
  br label %spin
linger:                                   ; still awake, but whoever else wants this core gets it
  %most = mul i64 %spins, LINGERS
  %awhile = icmp slt i64 %n, %most
  br i1 %awhile, label %polite, label %sleep
polite:
  %yes = and i64 %n, 15
  %now = icmp eq i64 %yes, 0
  br i1 %now, label %yield, label %relax
yield:
  %y = call i32 @sched_yield()
  br label %relax
sleep:
  %l = call i32 @pthread_mutex_lock(ptr %mutex)
  %sl = atomicrmw add ptr %sleepers, i64 1 seq_cst
  br label %check
check:
  %s2 = load atomic i64, ptr %state seq_cst, align 8
  %epoch2 = lshr i64 %s2, 17
  %same = icmp eq i64 %epoch2, %last
  %st2 = load atomic i64, ptr %stop seq_cst, align 8
  %run_on = icmp eq i64 %st2, 0
  %doze = and i1 %same, %run_on
  br i1 %doze, label %block, label %awake
block:
  %w = call i32 @pthread_cond_wait(ptr %cond, ptr %mutex)
  br label %check
awake:
  %sl2 = atomicrmw sub ptr %sleepers, i64 1 seq_cst
  %u = call i32 @pthread_mutex_unlock(ptr %mutex)
  br label %idle
out:
  %lv = atomicrmw sub ptr %live, i64 1 seq_cst
  ret ptr null
}

define void @glassgrad_start(ptr %pool, i64 %workers, i64 %spins) nounwind {
entry:
  %thread = alloca i64
  %mutex = @MUTEX(%pool)
  %cond = @COND(%pool)
  %live = @LIVE(%pool)
  %spinp = @SPIN(%pool)
  %a = call i32 @pthread_mutex_init(ptr %mutex, ptr null)
  %b = call i32 @pthread_cond_init(ptr %cond, ptr null)
  store i64 %spins, ptr %spinp
  br label %more
more:
  %i = phi i64 [ 0, %entry ], [ %i1, %started ]
  %go = icmp slt i64 %i, %workers
  br i1 %go, label %start, label %done
start:
  %c = call i32 @pthread_create(ptr %thread, ptr null, ptr @glassgrad_worker, ptr %pool)
  %ok = icmp eq i32 %c, 0
  br i1 %ok, label %started, label %done
started:
  %t = load i64, ptr %thread
  %d = call i32 @pthread_detach(i64 %t)
  %lv = atomicrmw add ptr %live, i64 1 seq_cst
  %i1 = add i64 %i, 1
  br label %more
done:
  ret void
}

define void @glassgrad_stop(ptr %pool) nounwind {
  %mutex = @MUTEX(%pool)
  %cond = @COND(%pool)
  %stop = @STOP(%pool)
  %l = call i32 @pthread_mutex_lock(ptr %mutex)
  store atomic i64 1, ptr %stop seq_cst, align 8
  %c = call i32 @pthread_cond_broadcast(ptr %cond)
  %u = call i32 @pthread_mutex_unlock(ptr %mutex)
  ret void
}

; wake as many sleeping workers as there are pieces for
define internal void @wake(ptr %pool, i64 %want) noinline nounwind {
entry:
  %mutex = @MUTEX(%pool)
  %cond = @COND(%pool)
  %sleepers = @SLEEPERS(%pool)
  %l = call i32 @pthread_mutex_lock(ptr %mutex)
  %sl = load atomic i64, ptr %sleepers seq_cst, align 8
  %few = icmp slt i64 %want, %sl
  br i1 %few, label %one, label %all
one:
  %i = phi i64 [ 0, %entry ], [ %i1, %one ]
  %s = call i32 @pthread_cond_signal(ptr %cond)
  %i1 = add i64 %i, 1
  %again = icmp slt i64 %i1, %want
  br i1 %again, label %one, label %done
all:
  %b = call i32 @pthread_cond_broadcast(ptr %cond)
  br label %done
done:
  %u = call i32 @pthread_mutex_unlock(ptr %mutex)
  ret void
}

define internal void @share(ptr %pool, ptr %rows, i64 %total, i64 %threads) noinline nounwind {
entry:
  %state = @STATE(%pool)
  %next = @NEXT(%pool)
  %sleepers = @SLEEPERS(%pool)
  %rowsp = @ROWS(%pool)
  %totalp = @TOTAL(%pool)
  %partp = @PART(%pool)
  %limitp = @LIMIT(%pool)
  %part = shl i64 %threads, 2
  %limit = sub i64 %threads, 1
  store ptr %rows, ptr %rowsp
  store i64 %total, ptr %totalp
  store i64 %part, ptr %partp
  store atomic i64 %limit, ptr %limitp monotonic, align 8
  store atomic i64 0, ptr %next monotonic, align 8
  %s = load atomic i64, ptr %state monotonic, align 8
  %epoch = lshr i64 %s, 17
  %epoch1 = add i64 %epoch, 1
  %high = shl i64 %epoch1, 17
  %opened = or i64 %high, 65536
  store atomic i64 %opened, ptr %state seq_cst, align 8
  %sl = load atomic i64, ptr %sleepers seq_cst, align 8
  %asleep = icmp ne i64 %sl, 0
  br i1 %asleep, label %rouse, label %mine
rouse:
  %others = sub i64 %total, 1
  %enough = icmp slt i64 %others, %limit
  %want = select i1 %enough, i64 %others, i64 %limit
  call void @wake(ptr %pool, i64 %want)
  br label %mine
mine:
  call void @work(ptr %pool, ptr %rows, i64 %total, i64 %part)
  %o = atomicrmw and ptr %state, i64 -65537 acq_rel
  br label %join
join:
  %n = phi i64 [ 0, %mine ], [ %n1, %relax ], [ %n1, %yield ]
  %s2 = load atomic i64, ptr %state acquire, align 8
  %inside = and i64 %s2, 65535
  %left = icmp eq i64 %inside, 0
  br i1 %left, label %done, label %again
again:
  %n1 = add i64 %n, 1
  %short = icmp slt i64 %n, 2000
  br i1 %short, label %relax, label %yield
relax:
  $PAUSE
  br label %join
yield:
  %y = call i32 @sched_yield()
  br label %join
done:
  ret void
}

; patch `patches` argument words from `inputs` (place, index, offset each)
define internal void @patch(ptr %patch, i64 %patches, ptr %inputs) nounwind {
entry:
  %any = icmp sgt i64 %patches, 0
  br i1 %any, label %fill, label %done
fill:
  %p = phi i64 [ 0, %entry ], [ %p1, %fill ]
  %pp = getelementptr [3 x i64], ptr %patch, i64 %p
  %place = load ptr, ptr %pp
  %pi = getelementptr i64, ptr %pp, i64 1
  %index = load i64, ptr %pi
  %po = getelementptr i64, ptr %pp, i64 2
  %offset = load i64, ptr %po
  %ip = getelementptr i64, ptr %inputs, i64 %index
  %value = load i64, ptr %ip
  %word = add i64 %value, %offset
  store i64 %word, ptr %place
  %p1 = add i64 %p, 1
  %pmore = icmp slt i64 %p1, %patches
  br i1 %pmore, label %fill, label %done
done:
  ret void
}

; patch the arguments, then run `n` rows; all in one argument: ctypes takes 0.15 us for each
define void @glassgrad_run(ptr %call) nounwind {
entry:
  %pool = load ptr, ptr %call
  %q1 = getelementptr ptr, ptr %call, i64 1
  %rows = load ptr, ptr %q1
  %q2 = getelementptr ptr, ptr %call, i64 2
  %n = load i64, ptr %q2
  %q3 = getelementptr ptr, ptr %call, i64 3
  %threads = load i64, ptr %q3
  %q4 = getelementptr ptr, ptr %call, i64 4
  %patch = load ptr, ptr %q4
  %q5 = getelementptr ptr, ptr %call, i64 5
  %patches = load i64, ptr %q5
  %q6 = getelementptr ptr, ptr %call, i64 6
  %inputs = load ptr, ptr %q6
  call void @patch(ptr %patch, i64 %patches, ptr %inputs)
  %busy = @BUSY(%pool)
  %many = icmp sgt i64 %threads, 1
  br i1 %many, label %lock, label %begin
lock:
  %b = cmpxchg ptr %busy, i64 0, i64 1 acquire monotonic
  %mine = extractvalue { i64, i1 } %b, 1
  br label %begin
begin:
  %pooled = phi i1 [ false, %entry ], [ %mine, %lock ]
  %some = icmp sgt i64 %n, 0
  br i1 %some, label %row, label %end
row:
  %i = phi i64 [ 0, %begin ], [ %i1, %next ]
  %r = getelementptr [4 x i64], ptr %rows, i64 %i
  %rc = getelementptr i64, ptr %r, i64 2
  %count = load i64, ptr %rc
  %rg = getelementptr i64, ptr %r, i64 3
  %group = load i64, ptr %rg
  br i1 %pooled, label %sum, label %alone
sum:
  %j = phi i64 [ 1, %row ], [ %j1, %add ]
  %total = phi i64 [ %count, %row ], [ %total1, %add ]
  %more = icmp slt i64 %j, %group
  br i1 %more, label %add, label %summed
add:
  %at = add i64 %i, %j
  %rj = getelementptr [4 x i64], ptr %rows, i64 %at, i64 2
  %cj = load i64, ptr %rj
  %total1 = add i64 %total, %cj
  %j1 = add i64 %j, 1
  br label %sum
summed:
  %big = icmp sgt i64 %total, 1
  br i1 %big, label %shared, label %alone
shared:
  call void @share(ptr %pool, ptr %r, i64 %total, i64 %threads)
  br label %next
alone:
  %fn = load ptr, ptr %r
  %ra = getelementptr i64, ptr %r, i64 1
  %args = load ptr, ptr %ra
  call void %fn(ptr %args, ptr %args, i64 0, i64 %count)
  br label %next
next:
  %step = phi i64 [ %j, %shared ], [ 1, %alone ]
  %i1 = add i64 %i, %step
  %rmore = icmp slt i64 %i1, %n
  br i1 %rmore, label %row, label %end
end:
  br i1 %pooled, label %unlock, label %done
unlock:
  store atomic i64 0, ptr %busy release, align 8
  br label %done
done:
  ret void
}

; the same for the words (call, inputs...) on this thread alone: what is small is done before a worker has woken
define void @glassgrad_quick(ptr %words) nounwind {
entry:
  %call = load ptr, ptr %words
  %inputs = getelementptr ptr, ptr %words, i64 1
  %q1 = getelementptr ptr, ptr %call, i64 1
  %rows = load ptr, ptr %q1
  %q2 = getelementptr ptr, ptr %call, i64 2
  %n = load i64, ptr %q2
  %q4 = getelementptr ptr, ptr %call, i64 4
  %patch = load ptr, ptr %q4
  %q5 = getelementptr ptr, ptr %call, i64 5
  %patches = load i64, ptr %q5
  call void @patch(ptr %patch, i64 %patches, ptr %inputs)
  %some = icmp sgt i64 %n, 0
  br i1 %some, label %row, label %done
row:
  %i = phi i64 [ 0, %entry ], [ %i1, %row ]
  %r = getelementptr [4 x i64], ptr %rows, i64 %i
  %fn = load ptr, ptr %r
  %ra = getelementptr i64, ptr %r, i64 1
  %args = load ptr, ptr %ra
  %rc = getelementptr i64, ptr %r, i64 2
  %count = load i64, ptr %rc
  call void %fn(ptr %args, ptr %args, i64 0, i64 %count)
  %i1 = add i64 %i, 1
  %rmore = icmp slt i64 %i1, %n
  br i1 %rmore, label %row, label %done
done:
  ret void
}

; memory of this thread for large private scratch: kept, and grown when a kernel asks for more
@glassgrad_key = global i32 0
define ptr @glassgrad_scratch(i64 %bytes) nounwind {
entry:
  %made = alloca ptr
  %key = load i32, ptr @glassgrad_key
  %old = call ptr @pthread_getspecific(i32 %key)
  %none = icmp eq ptr %old, null
  br i1 %none, label %grow, label %check
check:
  %size = load i64, ptr %old
  %fits = icmp ule i64 %bytes, %size
  br i1 %fits, label %good, label %drop
good:
  %m = getelementptr i8, ptr %old, i64 64
  ret ptr %m
drop:
  call void @free(ptr %old)
  br label %grow
grow:
  %all = add i64 %bytes, 128
  store ptr null, ptr %made
  %e = call i32 @posix_memalign(ptr %made, i64 64, i64 %all)
  %new = load ptr, ptr %made
  store i64 %bytes, ptr %new
  %k = call i32 @pthread_setspecific(i32 %key, ptr %new)
  %m2 = getelementptr i8, ptr %new, i64 64
  ret ptr %m2
}
"""


class Runtime:
    """The compiled runtime of this process.

    `call(address)` is the native entry. It takes CALL_WORDS words: pool, rows, their number, threads (the caller being one), patches,
    their number, inputs. `quick(words)`, the entry for small graphs, keeps Python's lock; it takes the address of a call and the inputs.
    Who asks for more threads than there are workers and caller calls `grow` before; the first call starts the pool.
    """

    def __init__(self, link: Callable[[str, dict[str, int], list[str]], tuple[Any, dict[str, int]]]) -> None:
        """`link(ir, imported addresses, exported names)` compiles and loads, giving a keep-alive and the exported addresses."""
        libc = ctypes.CDLL(None)
        imports = {name: ctypes.cast(getattr(libc, name), ctypes.c_void_p).value or 0 for name in _IMPORTS}
        names = ["glassgrad_run", "glassgrad_start", "glassgrad_stop", "glassgrad_scratch", "glassgrad_key", "glassgrad_quick"]
        self.keep, self.at = link(source(), imports, names)
        word = ctypes.c_int64
        key = ctypes.c_uint32()
        libc.pthread_key_create(ctypes.byref(key), ctypes.cast(libc.free, ctypes.c_void_p))
        ctypes.c_uint32.from_address(self.at["glassgrad_key"]).value = key.value
        self.call = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self.at["glassgrad_run"])
        self.quick = ctypes.PYFUNCTYPE(None, ctypes.c_char_p)(self.at["glassgrad_quick"])
        self._start = ctypes.CFUNCTYPE(None, word, word, word)(self.at["glassgrad_start"])
        self._stop = ctypes.CFUNCTYPE(None, word)(self.at["glassgrad_stop"])
        self._lock = threading.Lock()
        self.pool, self.workers, self._memory, self._dropped = 0, 0, None, []
        self._new_pool()
        os.register_at_fork(after_in_child=self._forked)

    def grow(self, workers: int) -> None:
        """At least `workers` workers; a larger pool replaces the one before, whose workers go home."""
        with self._lock:
            if self.workers >= workers: return
            if self.workers: self.stop()
            self._new_pool()
            # workers never take signals: those belong to Python's main thread
            before = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
            try: self._start(self.pool, workers, SPINS)
            finally: signal.pthread_sigmask(signal.SIG_SETMASK, before)
            self.workers = workers

    def stop(self) -> None:
        """Send the workers home and wait (shortly) until they have left; what runs afterwards runs on the caller."""
        if not self.workers: return
        self._stop(self.pool)
        live, deadline = ctypes.c_int64.from_address(self.pool + _LIVE), time.monotonic() + 1
        while live.value > 0 and time.monotonic() < deadline: time.sleep(1e-4)
        self._dropped.append(self._memory)        # a worker that is late may still look at it
        self.workers = 0

    def close(self) -> None:
        """At exit: no thread may be inside code that is about to go away."""
        self.stop()
        self.workers = 1 << 30                    # no new ones

    def _new_pool(self) -> None:
        self._memory = ctypes.create_string_buffer(POOL_BYTES + 128)
        self.pool = -(-ctypes.addressof(self._memory) // 128) * 128

    def _forked(self) -> None:
        """Threads do not survive a fork, and the pool's lock may be held: begin anew."""
        self._lock = threading.Lock()
        if self.workers < 1 << 30: self.workers = 0
        self._dropped.append(self._memory)
        self._new_pool()
