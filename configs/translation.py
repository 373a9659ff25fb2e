"""Translation from scratch: the Transformer of 2017, small, on Multi30k's 29,000 pairs of English and German captions.

    python -m jaxlm.train configs/translation.py data.source=train.en.gz::train.de.gz \\
        data.validation_source=val.en.gz::val.de.gz data.test_source=test_2017_flickr.en.gz::test_2017_flickr.de.gz
    python -m jaxlm.evaluate runs/translation --split test --num-beams 5 --output outputs.jsonl

Sentence n of one file belongs to sentence n of the other; a tsv or jsonl with the columns source and target, or a set of TFDS, will do
as well:

    ... data.source=tfds:ted_hrlr_translate/pt_to_en data.validation_source=tfds:ted_hrlr_translate/pt_to_en@validation \\
        data.test_source=tfds:ted_hrlr_translate/pt_to_en@test records.source_language=pt records.target_language=en

One byte-level BPE is learnt from both languages, rows hold several pairs each that do not see one another, and 200 validation sentences
are translated at each evaluation: the best checkpoint is the one with the highest BLEU. A pair with nine times as many tokens on one
side stops the run with its line; records.skip=true leaves it out and counts it. The mean of five checkpoints close to each other
(checkpoint.every=40, measured below) is a run too:

    python -m jaxlm.convert runs/translation averaged --average 5 --run
    python -m jaxlm.evaluate averaged --split test --num-beams 5

Measured on one core of an EPYC with AVX2, float32, on test_2017 (1,000 sentences): BLEU 28.80 with 5 beams (27.19 to 30.53; chrF 57.2,
TER 60.1), 27.37 greedily; sacrebleu's 13a, cased. 2,290 steps of 29,000 pairs, 10 times through, in two hours beside other work; at the
2,000 tokens/s that it began with, alone on its core, they would take 75 minutes. Translating takes 26 s greedily, 66 s with beams.
Validation BLEU of 200 sentences, greedy, after 500, 1,000, 1,500, 2,000 and 2,290 steps: 22.4, 28.9, 31.9, 33.6, 34.8.

What its parts are worth at a quarter of the steps (epochs=2.5 optimizer.warmup=100 checkpoint.every=40), on test_2017, greedily; BLEU's
intervals reach 1.3 points to each side, so nothing here is told apart from chance:

                                      BLEU   chrF   TER
    as above                         18.25  43.82  73.88
    the mean of its last five        18.36  43.78  73.35
    loss.label_smoothing=0           18.13  43.84  74.42
    loss.scheduled_sampling=0.25     17.96  43.77  73.56

Minimum risk, on top of that run (model=none takes its sizes); a step of 134 sentences on average, with 8 candidates each, takes 20 s:

    python -m jaxlm.train configs/translation.py model=none pretrained=runs/translation workdir=runs/translation_risk risk.reward=bleu \\
        risk.reference=false data.packing=buckets epochs=none steps=90 optimizer.learning_rate=1e-4 optimizer.warmup=10 \\
        optimizer.end=0.1 evaluation.every=30 evaluation.generate=1014 checkpoint.every=30 ...

                                            validation, greedy     test_2017, greedy     5 beams          reward
                                            BLEU     TER           BLEU     TER          BLEU     TER
    before                                  37.39    48.57         27.37    61.47        28.80    60.12    23.47
    as above, 30 steps                      37.52    48.11         27.94    60.81        29.16    59.27    26.70
    as above, 90 steps                      37.52    47.86         28.71    59.50        29.40    58.73    27.85
    with the reference, 2e-4, 120 steps     37.67    48.83         27.62                 28.89             27.16

The reward, which is what is learnt: the mean sentence BLEU of 8 texts drawn for each of the 1,014 validation sentences; the first 30
steps raise it by 2.93 to 3.54. Test BLEU after 90 steps is 1.34 higher greedily (paired p = 0.001), 0.60 with beams (p = 0.020). By
validation BLEU, 37.519 against 37.517, the best checkpoint is that of step 30, which `evaluate` takes; the last is a run of its own by
python -m jaxlm.convert runs/translation_risk last --average 1 --run. Every 30 steps with the reference: 37.43, 37.00, 37.29, 37.67.

The first ten sentences, the references and ours after 2,290 steps:

    ref.  Ein schlanker gelblicher Hund beim Absolvieren eines Hindernislaufs, der in einem Bereich mit nacktem Erdboden aufgebaut
          ist
    ours  Ein flauschiger gelber Hund, der mitten auf einem Feldweg.
    ref.  Ein Schwarz-Weiß-Foto eines Hundes, der nach vorn blickt, mit einem Hintergrund aus Schildern in einer asiatischen
          Sprache.
    ours  Ein schwarz-weißer Foto von einem Hund, der im Hintergrund mit Schildern darauf vorführt, im Hintergrund zu sehen ist.
    ref.  Eine Luftaufnahme mit braun werdenden Bäumen, einem schlossartigen Gebäude, das darin zu erkennen ist, und einer
          Berglandschaft am Horizont.
    ours  Eine schwere Landschaft mit braunem Gras und einem Schlosspielzeug und einer Schlossmaschine durch die Landschaft.
    ref.  Ein Mann mit nackter Brust schreit bei einem Auftritt auf einer Bühne einen Song heraus.
    ours  Ein nackter Mann mit nacktem Oberkörper macht ein Lied während einer Aufführung auf einer Bühne.
    ref.  Ein schlanker asiatischer Mann in einer langen weißen Schürze und einer blauen Kopfbedeckung, der in einer Restaurantküche
          Nudeln zieht.
    ours  Ein schlanker asiatischer Mann mit einer langen weißen Schürze und einem blauen Hut nimmt an einem Restaurant vorbei.
    ref.  Ein Mann und eine Frau gehen die in der Stadt.
    ours  Ein Mann und eine Frau gehen in der Stadt.
    ref.  Ein Wasserfall in einem Wald mit vielen Bäumen
    ours  Ein Wasserfall in einem Wald mit vielen Bäumen.
    ref.  Eine Biene, die über violett-orangefarbenen Blumen schwebt.
    ours  Ein Beamter bläst über lila und orange Blumen.
    ref.  Ein ruhiger, von Bäumen und Steinen umgebender See.
    ours  Ein ruhiger See umgeben von Bäumen und Felsen.
    ref.  Zwei Personen auf einem Fußballfeld, eine auf dem Boden.
    ours  Zwei Personen auf einem Footballfeld, einer auf dem Boden liegt.
"""

from jaxlm.config import Checkpoint, Data, Evaluation, Loss, Optimizer, Records, Run, Tokenizer
from jaxlm.models import transformer

config = Run(
    model=transformer.Config(
        vocab_size=None,
        d_model=256,
        encoder_layers=3,
        decoder_layers=3,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=1024,
        decoder_ffn_dim=1024,
        norm="pre",
        max_position_embeddings=128,
        dropout=0.2,
    ),
    task="translation",
    workdir="runs/translation",
    epochs=10,
    data=Data(
        source="train.en.gz::train.de.gz",
        validation_source="val.en.gz::val.de.gz",
        test_source="test_2017_flickr.en.gz::test_2017_flickr.de.gz",
        sequence_length=64,
        target_length=64,
    ),
    batch_size=32,
    records=Records(source_language="en", target_language="de", ratio=9.0),
    tokenizer=Tokenizer(kind="bpe", vocab_size=8000),
    loss=Loss(label_smoothing=0.1),
    optimizer=Optimizer(learning_rate=2e-3, schedule="cosine", end=0.02, warmup=400, b2=0.98, eps=1e-9, weight_decay=0.01),
    evaluation=Evaluation(every=500, generate=200, best="bleu"),
    checkpoint=Checkpoint(every=500, keep=5),
)
