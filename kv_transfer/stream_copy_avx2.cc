#ifdef __x86_64__
#define BATON_STREAM_ISA avx2
#include "kv_transfer/stream_copy_loop.h"
#endif
