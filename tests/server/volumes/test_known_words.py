"""The demo's report warns of a prompt with a word that its checkpoint does not know."""


def test_the_report_warns_of_unknown_words(client, volume):
    warnings = client.segment(volume, ["liver", "gall bladder"]).report["warnings"]
    [doubt] = [warning for warning in warnings if "not trained on" in warning]
    assert "prompt 2," in doubt
    assert not [w for w in client.segment(volume, "liver").report["warnings"] if "not trained on" in w]
