"""placeholder"""

from nashc.nas.proxies.candidate import Candidate, Proxy, Terms


def _terms(c: Candidate) -> Terms:
    return {"x": 0.0}


PROXY = Proxy("hybrid", "this project", _terms)
