/* Makes a program of the function that PROGRAM names. */
#include "programs.h"

#include <signal.h>

int main(int argc, char** argv) {
  int status = 0;
  signal(SIGPIPE, SIG_IGN);
  status = PROGRAM(argc, argv, stdout);
  return fflush(stdout) == 0 ? status : 1;
}
