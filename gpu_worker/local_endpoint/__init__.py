"""RunPod Serverless on this machine: both faces of a queue-based endpoint, for laptops and tests.

Clients speak to `/v2/<endpoint>/run|status|cancel|...`; the unmodified RunPod SDK's worker loop speaks to
`/v2/<endpoint>/job-take|job-done|job-stop|job-stream|ping`. Start it with `python -m
gpu_worker.local_endpoint`; `docs/worker.md` lists the options, the worker's environment, the faults and what
differs from the hosted service.

    client_face, worker_face, admin_face  -> queue -> store      requests move jobs
    sweeper -> queue, webhooks                                  time moves jobs
"""
