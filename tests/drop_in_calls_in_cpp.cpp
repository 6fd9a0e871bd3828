// drop_in_calls.c as C++.
#include "drop_in_calls.c"
