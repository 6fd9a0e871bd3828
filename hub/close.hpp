// close(2) and dup2(2) for descriptors that selectors and fibers may be watching.
//
// A request in the ring holds the open file. After a bare close(2) of a watched descriptor the peer sees no
// end of file, a port stays bound, and the old request still fires when the number has a new owner. These
// calls let the watches go first: when they have returned, the file is as closed as if nobody had watched it.
// (Only after calls on a blocking tty or its like, which a worker thread of the kernel's has made, it may
// take until the hub next waits.)
//
// Watches of this thread's hub, that is: a descriptor is watched by one hub at a time, or the others
// unregister it first. On a thread without a hub they are the plain calls.
#pragma once

namespace [[gnu::visibility("default")]] annulet {

// Closes fd, once. Every selector that has it registered reports it from now on as poll(2) reports a closed
// descriptor, a parked one at once; calls of other fibers on it end with EBADF. Parks only where the kernel
// carries out such a call, until that has ended, or where SO_LINGER has close(2) wait, which a thread then
// does; nothing interrupts it. (That needs a free descriptor; where there is none this thread waits.)
// Throws std::system_error (EBADF, and what close(2) says: the descriptor is closed even then); a descriptor
// that was not open changes nothing; one that the hub has for itself is none of the program's: EBADF.
void close(int fd);

// Makes `target` refer to the file of `source`, as dup2(2); returns target. Whoever watched target learns
// that it was closed, and who owned it does not any more. Where both are the same nothing happens.
// Parks as close does. While calls that the kernel carries out on target have to end, target says EBADF to
// other fibers, close and release among them; while the old file lingers, target is the new one already.
// Throws std::system_error (EBADF and the others of dup2(2)), and has then changed nothing. That may be after
// it was parked, where another fiber has closed the source meanwhile (to release it is no close): then target
// is as it was, selectors and its owner have it still, and calls that the kernel carried out, or would have
// meanwhile, are all that has ended, with EBADF. None of them has transferred anything, or it says how much.
int dup2(int source, int target);

}  // namespace annulet
