"""Docstrings in the three common styles, and what is no prose."""

import pytest

from dihal_bench.data.prose import prose_paragraphs, source_files


def paragraphs(docstring: str) -> list[str]:
    return list(prose_paragraphs(f'def f():\n    """{docstring}"""\n'))


def test_numpydoc():
    assert paragraphs(
        """Return the median of the values along an axis of the array.

    The values are sorted first, and the one in the middle is taken;
    with an even number of them it is the mean of two.

    Parameters
    ----------
    values : array_like
        The numbers whose median is wanted, in any order.
    axis : int, optional
        The axis along which the numbers are sorted. By default it is the last
        one of the array.

    Returns
    -------
    median : float
        The number in the middle of the others.

    Examples
    --------
    >>> median([1, 2, 3])
    2
    """
    ) == [
        "Return the median of the values along an axis of the array.",
        "The values are sorted first, and the one in the middle is taken; with an even number of "
        "them it is the mean of two.",
        "The numbers whose median is wanted, in any order.",
        "The axis along which the numbers are sorted. By default it is the last one of the array.",
        "The number in the middle of the others.",
    ]


def test_google():
    assert paragraphs(
        """Open the file and read the first line of it.

    Args:
        path (str): The name of the file that is to be read.
        limit (Optional[int]): The number of characters after which a line is
            cut off and the rest is dropped.

    Returns:
        The line without the end of line, or an empty string if there is none.
    """
    ) == [
        "Open the file and read the first line of it.",
        "The name of the file that is to be read.",
        "The number of characters after which a line is cut off and the rest is dropped.",
        "The line without the end of line, or an empty string if there is none.",
    ]


def test_rest_fields_and_roles():
    assert paragraphs(
        """Send the message to all of the listeners that :class:`~pkg.Bus` knows.

    :param message: the message that is sent to each of them.
    :returns: the number of listeners that have heard it.

    See :func:`listen` for the way in which a listener is added to the bus.
    """
    ) == [
        "Send the message to all of the listeners that `pkg.Bus` knows.",
        "the message that is sent to each of them.",
        "the number of listeners that have heard it.",
        "See `listen` for the way in which a listener is added to the bus.",
    ]


def test_list_items_are_paragraphs():
    assert paragraphs(
        """
    There are two ways in which this can be done by a user:

    - the first one is to ask for it in so many words;
    - the second is to wait until it is done by another.
    """
    ) == [
        "There are two ways in which this can be done by a user:",
        "the second is to wait until it is done by another.",
    ]


@pytest.mark.parametrize(
    "text",
    [
        ">>> the result of this is a number that is not in the list.",
        "Use of the function: self.run (the thing) is what is meant by this.",
        "import the module and then use it as it was meant to be used.",
        "| a table | of the cells | that is in | the text | of this.",
        "====== ===== and the rule of a table that is in the text.",
        "A page like https://example.org is not what is wanted in the text.",
        "a = b + c * (d - e) / f ** 2 - g[0] % h; i = j // k @ l + the_m.",
        "Tensor module buffer parameter gradient optimizer scheduler dataset loader.",
        "The end of this paragraph of text is not the end of a sentence",
        "Too short to be of use.",
        "1, 2, 3 and so on is how the numbers of the list are to be read.",
    ],
)
def test_what_is_no_prose(text):
    assert paragraphs(text) == []


def test_length_is_bounded():
    sentence = "This is one of the sentences that are in the text. "
    assert paragraphs(sentence * 10) == [(sentence * 10).strip()]
    assert paragraphs(sentence * 100) == []


def test_line_ends_and_form_feeds_do_not_matter():
    source = '"""The first of the lines is here\nand the second of them is there."""\n'
    expected = ["The first of the lines is here and the second of them is there."]
    assert list(prose_paragraphs(source)) == expected
    assert list(prose_paragraphs(source.replace("\n", "\r\n"))) == expected
    assert list(prose_paragraphs(source.replace("\n", "\n\f", 1))) == expected


def test_all_kinds_of_quotes_and_none():
    text = "This is one of the sentences that are in the text."
    source = f"x = 1\nr'''{text}'''\n    u\"\"\"{text}\"\"\"\ny = '{text}'\n"
    assert list(prose_paragraphs(source)) == [text, text]
    assert list(prose_paragraphs(f"# {text}\n")) == []


def test_source_files_are_named_from_the_package_on():
    files = source_files(["networkx", "no_such_package"])
    assert files == sorted(files)
    assert all(name.startswith("networkx/") and path.name.endswith(".py") for name, path in files)
    assert "networkx/classes/graph.py" in dict(files)
