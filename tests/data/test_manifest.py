import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sealed import damage

from rap.data.manifest import CAPTION_COLUMNS, SPLITS, VIDEO_COLUMNS, Manifest
from rap.errors import UserError
from rap.shards import untracked


def rows(count=6):
    videos = [{"video_id": f"v{i}", "path": f"v{i}.mp4", "split": ("train", "test")[i % 2]} for i in range(count)]
    captions = [{"caption_id": f"c{i}", "video_id": f"v{i // 2}", "caption": f"text {i}"} for i in range(2 * count)]
    return videos, captions


def test_a_manifest_is_read_as_it_was_written_and_its_bytes_are_reproducible(tmp_path):
    manifest = Manifest.build(*rows())
    manifest.write(tmp_path, untracked)
    bytes_before = [(tmp_path / f"{name}.parquet").read_bytes() for name in ("videos", "captions")]
    back = Manifest.read(tmp_path)
    back.write(tmp_path, untracked)
    assert bytes_before == [(tmp_path / f"{name}.parquet").read_bytes() for name in ("videos", "captions")]
    assert list(back.videos) == list(VIDEO_COLUMNS) and list(back.captions) == list(CAPTION_COLUMNS)
    pd.testing.assert_frame_equal(back.videos, manifest.videos)
    assert back.videos.start.isna().all() and (back.videos.twin == "").all()


def test_notes_are_kept_and_a_manifest_with_other_columns_is_rejected(tmp_path):
    manifest = Manifest.build(*rows(), notes=["2 captions are empty: left out", "ünï"])
    manifest.write(tmp_path, untracked)
    back = Manifest.read(tmp_path)
    assert back.notes == ("2 captions are empty: left out", "ünï") and back.captions.attrs == {}
    Manifest(manifest.videos.drop(columns="duration"), manifest.captions).write(tmp_path, untracked)
    with pytest.raises(UserError, match="another version wrote this manifest; run `rap download` again"):
        Manifest.read(tmp_path)


def test_splits_and_shards_partition_the_videos_with_their_captions():
    manifest = Manifest.build(*rows())
    for parts in ([manifest.split("train"), manifest.split("test")], [manifest.shard(k, 4) for k in range(4)]):
        assert sorted(id for part in parts for id in part.videos.video_id) == list(manifest.videos.video_id)
        assert sum(len(part.captions) for part in parts) == len(manifest.captions)
        for part in parts:
            assert set(part.captions.video_id) == set(part.videos.video_id)
            assert list(part.videos.index) == list(range(len(part.videos)))


@pytest.mark.parametrize(
    ("table", "change", "words"),
    [
        (0, {"video_id": "v0"}, "duplicate id"),
        (0, {"split": "dev"}, "unknown split"),
        (1, {"caption": "  "}, "empty caption"),
        (1, {"video_id": "v9"}, "not listed"),
        (1, {"caption_id": "c0"}, "duplicate id"),
    ],
)
def test_a_bad_row_is_rejected_by_name(table, change, words):
    tables = rows()
    tables[table][-1] |= change
    with pytest.raises(UserError, match=words):
        Manifest.build(*tables)


def test_a_manifest_that_is_half_written_is_none(tmp_path, monkeypatch):
    Manifest.build(*rows()).write(tmp_path, untracked)

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(pd.DataFrame, "to_parquet", killed)
    with pytest.raises(KeyboardInterrupt):
        Manifest.build(*rows(4)).write(tmp_path, untracked)
    with pytest.raises(UserError, match="run `rap download` first"):
        Manifest.read(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_manifest_is_refused(tmp_path):
    Manifest.build(*rows()).write(tmp_path, untracked)
    damage(tmp_path / "captions.parquet")
    with pytest.raises(UserError, match=r"captions.parquet: damaged; run `rap download` to make it again"):
        Manifest.read(tmp_path)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)  # what UTF-8 can hold
seconds = st.floats(0, 1e6) | st.just(float("nan"))


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(data=st.data(), ids=st.lists(texts, unique=True, max_size=8))
def test_any_manifest_is_read_as_it_was_written_or_refused_in_one_line(tmp_path_factory, data, ids):
    folder = tmp_path_factory.mktemp("manifest")
    videos = [
        {
            "video_id": id,
            "path": data.draw(texts),
            "start": data.draw(seconds),
            "split": data.draw(st.sampled_from(SPLITS)),
        }
        for id in ids
    ]
    captions = [
        {"caption_id": f"{id}#{number}", "video_id": id, "caption": data.draw(texts)}
        for id in ids
        for number in range(2)
    ]
    try:
        manifest = Manifest.build(videos, captions)
    except UserError as error:
        assert "\n" not in str(error) and any(not row["caption"].strip() for row in captions)
        return
    manifest.write(folder, untracked)
    back = Manifest.read(folder)
    pd.testing.assert_frame_equal(back.videos, manifest.videos)
    pd.testing.assert_frame_equal(back.captions, manifest.captions)
    parts = [back.shard(number, 3) for number in range(3)]
    assert sorted(id for part in parts for id in part.videos.video_id) == sorted(ids)
