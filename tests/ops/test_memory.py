import torch

from dlrm.ops.memory import in_huge_pages, keep_freed_memory


def test_memory_is_usable_after_the_requests():
    keep_freed_memory()
    for size in (0, 1, 1 << 18, (3 << 20) + 7):
        tensor = torch.empty(size)
        assert in_huge_pages(tensor) is tensor
        assert tensor.fill_(2.0).sum() == 2.0 * size
