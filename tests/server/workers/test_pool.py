"""Jobs through real processes."""

from __future__ import annotations

from tests.server.workers.calling import job, method, pool_of, run
from tests.server.workers.conftest import Ward

OCCLUSION = method("occlusion", window=[5], stride=[3])


async def test_gradient_and_occlusion_come_back_in_the_order_asked(ward: Ward) -> None:
    bundle = ward.bundles["tiny-glioma"]
    async with pool_of(ward.catalog) as pool, job(bundle, ward.catalog, [method("gradient"), OCCLUSION]) as asked:
        answer = await run(pool, asked)
    assert list(answer.results) == ["gradient", "occlusion"]
    assert all(result.outcome == 1 for result in answer.results.values())
    for key in answer.results:
        for modality in bundle.modalities:
            assert answer.map_of(key, modality).size == 12 * 14 * 10
            assert abs(answer.map_of(key, modality)).max() > 0
