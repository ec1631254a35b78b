"""What connects the ranks of the final training: Horovod, or TensorFlow's own collectives.

An engine is a module with three functions. launch() starts one process for each rank over Spark. own_rank() gives the
number of the process. connect() gives the five names of Horovod that the training loop uses: rank(), size(),
allreduce(), broadcast_variables(), and Average with Sum.

May import training.loop, dataset, registry, ingest, platform and device. Start reading with choice.py.
"""
