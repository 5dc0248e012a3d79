"""The only place that knows Lightning."""

import warnings

# Said on every run by the versions of Lightning and torch that fit together, about nothing a user could change.
warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")
warnings.filterwarnings("ignore", message=".*does not have many workers.*")
warnings.filterwarnings("ignore", message=".*recommended to use `self.log.*sync_dist=True.*")
warnings.filterwarnings("ignore", message=".*Set a lower value for log_every_n_steps.*")
warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
warnings.filterwarnings("ignore", message=".*`srun` command is available on your system but is not used.*")
warnings.filterwarnings("ignore", message=".*module\\(s\\) in eval mode at the start of training.*")  # trainable=head
