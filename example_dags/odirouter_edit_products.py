"""One edit for each product of a list."""

from __future__ import annotations

from airflow.sdk import DAG, Param, task

with DAG(
    "odirouter_edit_products",
    schedule=None,
    tags=["example", "odirouter"],
    doc_md="""
    ### Edit a photograph of every product

    The list comes from an upstream task. Each product becomes a mapped task instance, which can be retried, cleared
    and cancelled separately; while OdiRouter works, none of them holds a worker.
    """,
    params={
        "folder": Param("/data/photos", type="string"),
        "output_path": Param("/data/edited", type="string"),
    },
) as dag:

    @task
    def products() -> list[dict[str, str]]:
        return [
            {"name": "cup of coffee", "photo": "coffee.png"},
            {"name": "cat", "photo": "chelsea.png"},
            {"name": "rocket", "photo": "rocket.jpg"},
        ]

    @task.odirouter_image_edit(output_path="{{ params.output_path }}", size="1024x1024", output_format="webp")
    def on_white(product: dict[str, str], params: dict[str, str] | None = None) -> dict[str, object]:
        folder = (params or {})["folder"]
        return {
            "prompt": f"Put the {product['name']} on a plain white background",
            "images": [f"{folder}/{product['photo']}"],
        }

    on_white.expand(product=products())
