"""The folder camera replays photographs."""


def test_replay_keeps_labels_of_file_names(agent, photos, tmp_path):
    """The original accelerator's names end with the class."""
    named = tmp_path / "named"
    named.mkdir()
    for index, label in enumerate(("0", "1", "0")):
        (named / f"2021-07-13T0{index}%3A55%3A04_rpi_sensor_3_front_{label}.jpg").write_bytes(
            (photos / "photo_0.jpg").read_bytes()
        )
    agent.configure(camera={"folder": str(named), "labelled": True, "loop": False})
    agent.run("capture")
    assert [ack.key.rpartition("_")[2] for ack in sorted(agent.acks(), key=lambda ack: ack.key)] == [
        "0.jpg",
        "1.jpg",
        "0.jpg",
    ]
