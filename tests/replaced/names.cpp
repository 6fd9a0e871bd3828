// What has one of the names and is no call: before the system's headers, and after them.
struct file {
  int read(char* into);
  int close() const { return select; }
  int select = 0;
  static int poll(file& one) { return one.select; }
};
int file::read(char* into) { return into != nullptr ? close() : 0; }

namespace ours {
int read = 0;
int close(const file& one) { return one.select; }
class select {
 public:
  int send = 0;
};
}  // namespace ours
int recv(file& one) { return file::poll(one); }
template <typename Type>
int accept(Type one) {
  return one.close();
}

#include <sys/socket.h>
#include <unistd.h>

struct descendant : file {
  int connect(int where) { return where + recv(*this); }
  using file::read;
};

int after(int number) {
  descendant one;
  ours::select chosen;
  chosen.send = number;
  const int sleep = one.connect(number) + accept(one) + ours::read + chosen.send + ours::close(one);
  char byte = 0;
  return sleep + static_cast<int>(::read(number, &byte, 1)) + ::close(number) + one.read(&byte);
}
