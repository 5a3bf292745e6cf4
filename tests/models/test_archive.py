"""TorchScript archives are read for their tensors, and none of their code is run."""

import io
import pickle
import warnings
import zipfile

import pytest
import torch
from torch import nn

import clip_explain as cx
from clip_explain.errors import WeightsError
from clip_explain.models.archive import read_archive
from clip_explain.models.weights import read_weights

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated", "ignore::DeprecationWarning")


class Parts(nn.Module):
    """Tensors of many kinds: shared, views, transposed, empty, non-persistent, and others that are no state."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4).half()
        self.same = self.layer
        self.view = nn.Parameter(self.layer.weight.data[1:3])
        self.turned = nn.Parameter(torch.randn(4, 3).T)
        self.brain = nn.Parameter(torch.randn(2).bfloat16())
        self.scalar = nn.Parameter(torch.tensor(2.0))
        self.empty = nn.Parameter(torch.zeros(0, 3))
        self.many = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False), nn.BatchNorm2d(2))
        self.register_buffer("counts", torch.arange(3))
        self.register_buffer("mask", torch.tensor([True, False]), persistent=False)
        self.plain = torch.ones(5)
        self.sizes, self.names, self.number, self.large = [1, 2], ["a"], 2.5, 12345678901
        self.device = torch.device("cpu")
        self.by_name = {"a": torch.ones(1)}
        self.listed = [torch.ones(2)]

    def forward(self, x):
        extra = self.plain.sum() + self.by_name["a"] + self.listed[0].sum() + self.sizes[0] + self.number + self.large
        return self.many(x) + extra + len(self.names)


def scripted(module, path):
    torch.jit.script(module).save(path)
    return path


def test_tensors_are_those_of_torch_jit_load(tmp_path):
    path = scripted(Parts().eval(), tmp_path / "parts.pt")
    found, expected = read_archive(path), torch.jit.load(path).state_dict()
    assert found.keys() == expected.keys() and len(found) == 17
    for key, value in expected.items():
        assert torch.equal(found[key], value) and found[key].dtype == value.dtype, key
        assert found[key].stride() == value.stride(), key


def test_a_traced_module_is_read_too(tmp_path):
    network = nn.Sequential(nn.Linear(3, 3), nn.MultiheadAttention(4, 2).out_proj)
    torch.jit.trace(network[0], torch.ones(1, 3)).save(tmp_path / "traced.pt")
    expected = torch.jit.load(tmp_path / "traced.pt").state_dict()
    found = read_archive(tmp_path / "traced.pt")
    assert found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)


def changed(source, target, entries, compress=zipfile.ZIP_STORED):
    """A copy of an archive with other contents of some entries, given by the ends of their names."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compress) as new:
        for name in old.namelist():
            inside = name.partition("/")[2]
            new.writestr(name, entries.get(inside, old.read(name)))
    return target


def test_tensors_saved_on_a_gpu_are_read_on_the_cpu(tmp_path):
    path = scripted(nn.Linear(2, 2).half(), tmp_path / "linear.pt")
    with zipfile.ZipFile(path) as archive:
        data = archive.read("linear/data.pkl")
    on_gpu = data.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
    assert on_gpu != data
    moved = read_archive(changed(path, tmp_path / "moved.pt", {"data.pkl": on_gpu}))
    here = read_archive(path)
    assert all(torch.equal(moved[key], here[key]) and moved[key].device.type == "cpu" for key in here)


# -- code that would run


class Writes(nn.Module):
    """Its state is rebuilt by code that writes a file."""

    def __init__(self, target: str):
        super().__init__()
        self.target = target
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, x):
        return x

    @torch.jit.export
    def __getstate__(self):
        return self.target, self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, torch.Tensor, bool]):
        self.target = state[0]
        self.weight = state[1]
        self.training = state[2]
        torch.save(torch.ones(1), self.target)


class Loops(nn.Module):
    """Its state is rebuilt by code that never ends; it lies within another module."""

    def forward(self, x):
        return x

    @torch.jit.export
    def __getstate__(self):
        return {"weight": torch.ones(1)}

    @torch.jit.export
    def __setstate__(self, state: dict[str, torch.Tensor]):
        self.training = False
        while not self.training:
            state["weight"] += 1


class Allocates(nn.Module):
    """Its state is rebuilt by code that takes a terabyte."""

    def forward(self, x):
        return x

    @torch.jit.export
    def __getstate__(self):
        return {"weight": torch.ones(1)}

    @torch.jit.export
    def __setstate__(self, state: dict[str, torch.Tensor]):
        self.training = bool(torch.ones(1 << 38).sum() > 0)


def test_an_archive_that_writes_a_file_when_loaded_is_refused_and_writes_none(tmp_path):
    target = tmp_path / "written"
    path = scripted(Writes(str(target)), tmp_path / "writes.pt")
    target.unlink(missing_ok=True)
    torch.jit.load(path)
    assert target.exists()  # the fault: torch's own loader runs it
    target.unlink()
    with pytest.raises(WeightsError, match="writes.pt cannot be read as weights"):
        cx.load(path)
    assert not target.exists()


@pytest.mark.parametrize("part", [Loops, Allocates])
def test_archives_that_loop_or_allocate_when_loaded_are_refused_at_once(tmp_path, part):
    path = scripted(nn.Sequential(nn.Linear(2, 2), part()), tmp_path / "part.pt")
    with pytest.raises(WeightsError, match=f"{part.__name__} rebuilds its tensors by code of its own"):
        cx.load(path)


class Hungry(nn.Module):
    """A plain state under a forward and constants that are never needed."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, x):
        while True:
            x = torch.cat([x, self.weight])
        return x


def test_code_of_the_forward_is_not_even_compiled(tmp_path):
    path = scripted(Hungry(), tmp_path / "hungry.pt")
    nonsense = changed(path, tmp_path / "nonsense.pt", {"constants.pkl": b"nonsense"})
    assert torch.equal(read_archive(nonsense)["weight"], torch.ones(2))


# -- pickles and zips that torch does not write


class Evil:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return open, (str(self.target), "w")


def nested(depth):
    """A pickle of tuples in tuples: small, but to compare, print or hash it takes 2^depth steps."""
    return b"\x80\x02)" + b"".join(b"q%c\x85h%c\x86" % (index, index) for index in range(depth))


def pickled(path, data):
    """The archive of a linear layer with another pickle, and its class under a name that is always the same."""
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(path.with_name("changed.pt"), "w") as new:
        new.writestr("linear/data.pkl", data)
        new.writestr("linear/data/0", archive.read("linear/data/0"))
        new.writestr("linear/code/__torch__.py", "class M(Module):\n  __parameters__ = []\n  __buffers__ = []\n")
    return path.with_name("changed.pt")


@pytest.fixture
def linear(tmp_path):
    return scripted(nn.Linear(2, 2), tmp_path / "linear.pt")


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_calls_a_function_is_refused(linear, tmp_path, protocol):
    path = pickled(linear, pickle.dumps(Evil(tmp_path / "written"), protocol))
    with pytest.raises(WeightsError, match="calls .*open|opcode"):
        read_weights(path)
    assert not (tmp_path / "written").exists()


MODULE = b"c__torch__\nM\n)\x81"
STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n("
WEIGHT = b"}X\x06\x00\x00\x00weight"


@pytest.mark.parametrize(
    "data, message",
    [
        (nested(60) + b".", "holds a tuple"),
        (nested(60) + b")R.", "calls tuple"),
        (b"}" + nested(60)[2:] + b"Ns.", "not a plain dict"),
        (b"cposix\nsystem\nX\x02\x00\x00\x00id\x85R.", "calls posix.system"),
        (b"cposix\nsystem\n)\x81.", "not a plain module"),
        (b"c__torch__\nA\n}b.", "not a plain module"),
        (b"(lp0\n.", "opcode LIST"),
        (b"K\x01K\x02", "pickle exhausted"),
        (b"\x86.", "more values than there are"),
        (b"X\xff\xff\xff\x7fabc.", "expected"),
        (WEIGHT + TENSOR + STORAGE + b"K\x00J\xff\xff\xff\x7f\x85K\x00\x85\x89)tRs.", "larger than its storage"),
        (WEIGHT + TENSOR + STORAGE + b"K\x00K\x04\x85K\x09\x85\x89)tRs.", "out of bounds|storage"),
        (WEIGHT + TENSOR + STORAGE + b"K\x00J\xff\xff\xff\x7fNN\x86\x86K\x00\x85\x89)tRs.", "larger than its storage"),
        (WEIGHT + TENSOR + STORAGE.replace(b"K\x04", b"K\x05") + b"K\x00)))tRs.", "16 bytes, expected 5 x 4"),
        (STORAGE.replace(b"K\x04", b"N") + b".", "names a storage"),
        (MODULE + b"q\x00}X\x01\x00\x00\x00aq\x01h\x00sb.", "modules that hold themselves"),
    ],
)
def test_odd_pickles_are_refused_at_once(linear, data, message):
    with pytest.raises(WeightsError, match=message):
        read_weights(pickled(linear, data))


def test_modules_that_multiply_are_refused(linear):
    """Each level holds the one below it twice: 2^60 paths in 3 kB."""
    data = MODULE + b"q\x00"
    for index in range(60):
        data += MODULE + b"}X\x01\x00\x00\x00ah%cs" % index + b"X\x01\x00\x00\x00bh%csbq%c" % (index, index + 1)
    with pytest.raises(WeightsError, match="more than 10000 modules"):
        read_weights(pickled(linear, data + b"."))


def test_compressed_tensors_and_sizes_beyond_the_file_are_refused(linear, tmp_path):
    zeros = bytes(50_000_000)
    bomb = changed(linear, tmp_path / "bomb.pt", {"data/0": zeros}, zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 100_000
    with pytest.raises(WeightsError, match="compressed"):
        read_weights(bomb)
    small = changed(linear, tmp_path / "small.pt", {"data/0": bytes(12)})
    with pytest.raises(WeightsError, match="12 bytes, expected 4 x 4"):
        read_weights(small)


def test_a_state_dict_whose_tensors_repeat_one_number_is_refused(tmp_path):
    torch.save({"weight": torch.zeros(1).expand(1 << 40)}, tmp_path / "wide.pt")
    with pytest.raises(WeightsError, match="more than its storage holds"):
        read_weights(tmp_path / "wide.pt")


def test_every_cut_and_many_flips_of_an_archive_are_errors_or_tensors(linear):
    whole = linear.read_bytes()
    for place in range(0, len(whole), 41):
        for damaged in (whole[:place], whole[:place] + bytes([whole[place] ^ 0x11]) + whole[place + 1 :]):
            linear.write_bytes(damaged)
            with warnings.catch_warnings(action="ignore"):
                try:
                    state, _ = read_weights(linear)
                except WeightsError:
                    continue
            assert set(state) <= {"weight", "bias"} and io.BytesIO(damaged).getbuffer().nbytes == len(whole)
