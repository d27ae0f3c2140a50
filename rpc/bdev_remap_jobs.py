"""Waiting on the command line for the end of a job."""

import time

# Seconds between two looks at it.
PAUSE = 0.2


def _job(client, name, kind):
    jobs = client.call("bdev_remap_status", {"name": name})[0].get("jobs", [])
    return next((job for job in jobs if job["kind"] == kind), None)


def wait(client, name, kind, is_cancelled):
    """Shows how the job of this kind stands until it has ended; how it has ended. If nobody here has
    cancelled it (is_cancelled), that is to be done. Whoever stops waiting does not stop the job."""
    # Only rpc.py has the first, and nothing else needs the second.
    from spdk.rpc.client import JSONRPCException
    from tqdm import tqdm

    with tqdm(desc="%s %s" % (kind, name), unit="block", unit_scale=True, dynamic_ncols=True) as bar:
        while True:
            job = _job(client, name, kind)
            if job is None:
                raise JSONRPCException("%s: there is no %s any more" % (name, kind))
            bar.total = job["blocks_total"] or None
            bar.update(job["blocks_done"] - bar.n)
            bar.refresh()
            if job["state"] not in ("running", "cancelling"):
                break
            time.sleep(PAUSE)
    if job["state"] == "failed":
        raise JSONRPCException("%s: %s failed: %s" % (name, kind, job["error"]))
    if job["state"] == "cancelled" and not is_cancelled:
        raise JSONRPCException("%s: %s was cancelled" % (name, kind))
    return job
