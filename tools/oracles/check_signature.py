"""Signatures between eulalia and OpenSSF Model Signing.

    python tools/oracles/check_signature.py target/debug/eulalia
    python tools/oracles/check_signature.py --write-golden crates/provenance/tests/golden

The first: a folder and a single file, signed by each of the two programs with a key of each, must be accepted by the other;
after one byte of a file is changed, both must refuse. The second rewrites the signatures that the tests of `provenance` read.

Needs `model-signing==1.1.1` and `pyopenssl==26.4.0` (which the former forgets to name), and the program `openssl`.
"""

import pathlib
import subprocess
import sys
import tempfile

FILES = {"config.json": "{}\n", "sub/βάρη.safetensors": "weights", "sub-b": "ħobż\n", ".gitignore": "*.tmp\n"}


def write_model(folder: pathlib.Path) -> None:
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def call(*words) -> bool:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    print("  ", "accepts" if done.returncode == 0 else "refuses", "|", (done.stderr or done.stdout).strip().split("\n")[-1])
    return done.returncode == 0


def package(*words) -> bool:
    return call(sys.executable, "-m", "model_signing", *words)


def new_key(folder: pathlib.Path, curve: str) -> tuple[pathlib.Path, pathlib.Path]:
    private, public = folder / f"{curve}.pem", folder / f"{curve}.pub.pem"
    subprocess.run(
        ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", f"ec_paramgen_curve:{curve}", "-out", private],
        check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
    return private, public


def write_golden(golden: pathlib.Path) -> None:
    golden.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        write_model(folder / "model")
        for curve, name in [("P-256", "folder"), ("P-384", "folder-p384"), ("P-256", "file")]:
            private, public = new_key(folder, curve)
            signed = folder / "model" if name.startswith("folder") else folder / "model" / "sub-b"
            assert package("sign", "key", signed, "--private_key", private, "--signature", golden / f"{name}.sig")
            (golden / f"{name}.pub.pem").write_bytes(public.read_bytes())


def compare(program: pathlib.Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        model = folder / "model"
        write_model(model)
        openssl_key, openssl_public = new_key(folder, "P-256")
        our_key, our_public = folder / "ours.pem", folder / "ours.pub.pem"
        assert call(program, "signing-key", "new", our_key)
        for private, public in [(openssl_key, openssl_public), (our_key, our_public)]:
            for signed in [model, model / "sub-b"]:
                name = "a folder" if signed == model else "a file"
                ours = model / "model.sig" if signed == model else folder / "ours.sig"
                theirs = folder / "theirs.sig"
                print(f"{name}, key {private.name}: signed by eulalia, then by model_signing; each checked by both")
                assert call(program, "sign", signed, "--key", private, "--signature", ours, "--force")
                assert package("sign", "key", signed, "--private_key", private, "--signature", theirs,
                               *(["--ignore-paths", ours] if signed == model else []))
                for signature in [ours, theirs]:
                    checks = [
                        lambda: package("verify", "key", signed, "--public_key", public, "--signature", signature,
                                        *(["--ignore-paths", ours] if signed == model else [])),
                        lambda: call(program, "verify", signed, "--public-key", public, "--signature", signature),
                    ]
                    assert all([check() for check in checks]), f"{signature.name} is refused"
                    altered = model / "sub-b"
                    original = altered.read_bytes()
                    altered.write_bytes(original[:-1] + b"!")
                    assert not any([check() for check in checks]), f"{signature.name} is accepted of altered files"
                    altered.write_bytes(original)
        (model / "model.sig").unlink()
    print("Both accept each other's signatures and refuse altered files.")


if __name__ == "__main__":
    if sys.argv[1] == "--write-golden":
        write_golden(pathlib.Path(sys.argv[2]))
    else:
        compare(pathlib.Path(sys.argv[1]).resolve())
