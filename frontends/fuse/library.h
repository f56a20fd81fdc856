// The version of libfuse's interface that this front end is written for.
#pragma once

#define FUSE_USE_VERSION 314

#include <fuse_lowlevel.h>
