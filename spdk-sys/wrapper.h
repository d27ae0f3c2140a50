/* What of SPDK is bound. build.rs narrows it to the names that the spdk crate uses. */
#include <spdk/stdinc.h>
#include <spdk/bdev.h>
#include <spdk/bdev_module.h>
#include <spdk/dma.h>
#include <spdk/env.h>
#include <spdk/json.h>
#include <spdk/jsonrpc.h>
#include <spdk/log.h>
#include <spdk/notify.h>
#include <spdk/rpc.h>
#include <spdk/thread.h>
#include <spdk/util.h>
#include <spdk/version.h>
