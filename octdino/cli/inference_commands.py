"""Commands that use a trained model on new scans."""

import argparse
from pathlib import Path

from octdino.cli.arguments import add_common, arm, backbone, count, file_path, positive, seed, share
from octdino.cli.flags import Parser, Verbs
from octdino.cli.new_scans import INPUTS, add_precision
from octdino.errors import EXIT_PARTLY


def _add_models(parser: Parser) -> None:
    parser.add_argument("results", type=Path, metavar="RESULTS", help="results/{cohort} of a finished run")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write one classifier as a model folder")
    parser.add_argument("--arm", type=arm, metavar="ARM", help="which arm (default: the best on validation patients)")
    parser.add_argument("--backbone", type=backbone, metavar="NAME", help="which backbone (default: the best one)")
    parser.add_argument("--fraction", type=share, metavar="X", help="which fraction (default: the largest)")
    parser.add_argument("--fold", type=count, metavar="N", help="which fold (default: the first)")
    parser.add_argument("--seed", type=seed, metavar="N", help="which seed (default: the first)")


def run_models(args: argparse.Namespace) -> None:
    """List the trained classifiers of a results folder with their scores, or write one as a model folder."""
    from octdino.inference.trained_runs import Wanted, choose, read_runs

    runs = read_runs(args.results)
    if args.out is None:
        from octdino.inference.model_list import list_models

        print(list_models(args.results, runs), end="")
        return
    from octdino.inference.model_writer import write_model

    run = choose(runs, Wanted(args.arm, args.backbone, args.fraction, args.fold, args.seed))
    write_model(args.results, run, args.out)


def _add_inputs(parser: Parser, several: bool = False) -> None:
    """Add MODEL and INPUT."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="a model folder, such as results/phantom/model")
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help=INPUTS)
    if several:
        _add_others(parser)


def _add_others(parser: Parser) -> None:
    parser.add_argument(
        "--with", type=Path, nargs="+", default=[], dest="others", metavar="MODEL",
        help="further models of an ensemble, such as those of other folds or seeds",
    )  # fmt: skip


def _add_predict(parser: Parser) -> None:
    _add_inputs(parser, several=True)
    add_common(parser, out="folder for predictions, quarantine.csv and gallery.html", settings=False, workers=True)
    parser.add_argument("--format", choices=("csv", "parquet"), default="csv", help="of the predictions (default: csv)")
    parser.add_argument("--overlays", action="store_true", help="write an image of each called label's class map")
    parser.add_argument(
        "--gallery", type=count, default=60, metavar="N", help="scans on the HTML page; 0: no page (default: 60)"
    )
    add_precision(parser)
    _add_threads(parser)


def _add_threads(parser: Parser) -> None:
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: OMP_NUM_THREADS or all)")


def run_predict(args: argparse.Namespace) -> int:
    """Predict the labels of new scans; bad files go to quarantine.csv and the exit code is then 3."""
    from octdino.inference.predict import PredictOptions, predict

    options = PredictOptions(args.format, args.precision, args.overlays, args.gallery, args.workers)
    counts = predict([args.model, *args.others], args.inputs, args.out, options)
    return EXIT_PARTLY if counts.refused else 0


def _add_neighbors(parser: Parser) -> None:
    _add_inputs(parser)
    add_common(parser, out="folder for neighbors.csv and neighbors.html", settings=False, workers=True)
    parser.add_argument(
        "--gallery", type=file_path, required=True, metavar="FILE", help="embeddings.h5 of `octdino embed MODEL INPUT`"
    )
    parser.add_argument("--count", type=positive, default=5, metavar="N", help="neighbors per scan (default: 5)")
    parser.add_argument("--shown", type=count, default=40, metavar="N", help="scans on the page (default: 40)")
    _add_threads(parser)


def run_neighbors(args: argparse.Namespace) -> int:
    """Find the scans of a gallery that are most similar to new scans."""
    from octdino.inference.neighbors import find_neighbors

    refused = find_neighbors(args.model, args.inputs, args.gallery, args.out, args.count, args.shown, args.workers)
    return EXIT_PARTLY if refused else 0


def _add_export(parser: Parser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help="a model folder, such as results/phantom/model")
    parser.add_argument(
        "--to", choices=("timm", "safetensors", "onnx", "huggingface"), required=True,
        help="timm: weights and config.json; safetensors: backbone and head as plain tensors; onnx: one graph from "
        "stored scans to probabilities; huggingface: a folder for a model hub, with a model card",
    )  # fmt: skip
    add_common(parser, out="new folder; an earlier export there is replaced", settings=False)
    parser.add_argument(
        "--backbone-only", action="store_true", help="timm, huggingface: without the classifier, num_classes=0"
    )
    parser.add_argument(
        "--license", default="other", metavar="ID",
        help="huggingface: license of the weights, as hubs spell it: mit, cc-by-4.0, … (default: other)",
    )  # fmt: skip


def run_export(args: argparse.Namespace) -> None:
    """Write a trained model in a form that other software loads; nothing is uploaded."""
    from octdino.inference.export import ExportOptions, export

    export(args.model, args.to, args.out, ExportOptions(args.backbone_only, args.license))


def _port(text: str) -> int:
    value = count(text)
    if value > 65535:
        raise argparse.ArgumentTypeError(f"{value}; expected 0 to 65535")
    return value


def _add_serve(parser: Parser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help="a model folder, such as results/phantom/model")
    _add_others(parser)
    parser.add_argument("--host", default="127.0.0.1", help="name or address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=_port, default=8000, metavar="N", help="0: any free port (default: 8000)")
    parser.add_argument(
        "--gallery",
        type=file_path,
        metavar="FILE",
        help="embeddings.h5 of `octdino embed MODEL INPUT`: shows neighbors",
    )
    parser.add_argument("--most-mb", type=positive, default=200, metavar="N", help="largest upload, MiB (default: 200)")
    add_precision(parser)
    _add_threads(parser)


def run_serve(args: argparse.Namespace) -> None:
    """Serve a local page on which scans and volumes are dropped to see their labels and class maps."""
    from octdino.inference.serve import ServeOptions, serve

    options = ServeOptions(args.host, args.port, args.gallery, args.most_mb, args.precision)
    serve([args.model, *args.others], options)


INFERENCE_VERBS: Verbs = {
    "models": (_add_models, run_models),
    "predict": (_add_predict, run_predict),
    "neighbors": (_add_neighbors, run_neighbors),
    "export": (_add_export, run_export),
    "serve": (_add_serve, run_serve),
}
