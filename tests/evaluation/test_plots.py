"""The pictures of the evaluation have titles and axes."""

from lakevision.evaluation import plots as evaluation_plots


def test_each_picture_has_title_and_axes(whole):
    cfg, evaluation, material = whole
    figure = evaluation_plots.overview(material, evaluation)
    assert evaluation.verdict in figure.get_suptitle()
    for axis in [*figure.axes, *evaluation_plots.causes(material, cfg).axes]:
        assert axis.get_title() and axis.get_xlabel()
    worst = evaluation_plots.worst(material)
    assert sum("WRONG" in axis.get_title() for axis in worst.axes) == (~material.right[material.shown]).sum() > 0
