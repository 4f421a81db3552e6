"""JAX as a second framework: it runs trained models, and trains them to the losses of PyTorch.

layers, models     the forward passes, pure functions of parameters by their names in torch
feed               batches as arrays of few shapes
losses, updates    what is minimised, and what optimizers do
step               the training step, in place of `dlrm.training.step.TrainStep`
runtime            the runtime `jax` of `dlrm runtimes`
"""
