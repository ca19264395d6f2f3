"""The examples at the end of the help screen of every command.

An example has two lines: a remark, which begins with #, and the command. The help
prints both as they are, so they have at most 76 characters.
"""

EXAMPLES = {
    "doctor": """
        # Check this machine and the default config
        normbench doctor
        # Check BatchNorm at batch size 2
        normbench doctor norm=batch batch_size=2
        # Examine a network of torchvision, timm or your own
        normbench doctor --model torchvision:resnet18 --input 8,3,64,64
        # See what GroupNorm in its place would change
        normbench doctor --model timm:resnet18 --input 8,3,64,64 --swap norm=group
    """,
    "list": """
        # All norms, one per line
        normbench list norms
        # The formula, the options and the tasks of one norm
        normbench list norms group
        # The tasks and the data sets
        normbench list tasks
        normbench list data
    """,
    "config": """
        # Every key of a run with its default
        normbench config
        # Every key of a Transformer with RMSNorm
        normbench config task=transformer norm=rms
        # Save a config to start runs from it
        normbench config norm=group batch_size=4 --json
    """,
    "help": """
        # All commands
        normbench help
        # The help of one command
        normbench help train
        # The help of a command with two words
        normbench help claim check
    """,
    "skill": """
        # Save the skill for an agent
        normbench skill > SKILL.md
    """,
    "train": """
        # A small CNN with GroupNorm on 3,000 digits
        normbench train norm=group norm.num_groups=4
        # BatchNorm with two samples per step, for ten steps
        normbench train norm=batch batch_size=2 budget.max_steps=10
        # A Transformer with RMSNorm, not logged by W&B
        normbench train task=transformer norm=rms tracker=none
        # Another optimizer, learning rate and seed
        normbench train optimizer=adamw lr=0.003 seed=1
        # The config of another run, with one change
        normbench train --from results/runs/RUN/config.yaml norm=layer
    """,
    "sweep": """
        # Two norms at two batch sizes with eight seeds: 32 runs
        normbench sweep norm=batch,group batch_size=2,8 'seed=range(0,8)'
        # How many runs there are, and how long they take
        normbench sweep norm=batch,group,layer seed=0,1,2 --dry-run
        # An option that only one of the norms has
        normbench sweep --arm norm=batch --arm "norm=group norm.num_groups=2,4"
        # All norms whose name begins with batch
        normbench sweep 'norm=glob(batch*)' task=cnn budget=smoke
        # The second of four shares, for a second machine
        normbench sweep norm=batch,group seed=0,1,2,3 --shard 1/4
    """,
    "watch": """
        # Follow the sweep that runs in another terminal
        normbench watch
        # Print the progress once
        normbench watch --once
        # Watch the runs in another folder
        normbench watch --results other/runs
    """,
    "status": """
        # All runs in results/runs
        normbench status
        # The runs of a sweep
        normbench status norm=batch,group batch_size=2,8
        # The runs in another folder
        normbench status --results other/runs
    """,
    "rerun": """
        # Repeat a run; the beginning of its id is enough
        normbench rerun 3f2a
        # Keep the new record in a folder of your choice
        normbench rerun 3f2a --output again
        # The data files have moved
        normbench rerun 3f2a data.path=/data/flowers
    """,
    "compare": """
        # Which of two norms is better at small batches?
        normbench compare batch_size=2,8 --arm norm=batch --arm norm=group
        # Rank three norms in ten minutes
        normbench compare --arm norm=batch,group,rms --minutes 10
        # A fixed number of seeds, and your own learning rates
        normbench compare --arm norm=batch --arm norm=rms --seeds 8 --rates 0.1,0.2
    """,
    "results": """
        # All runs
        normbench results
        # The mean and its 95% interval for each norm and batch size
        normbench results --by norm,batch_size
        # The runs of one norm, the best first
        normbench results --where norm=group --sort test/error
        # A table for other programs
        normbench results --csv
    """,
    "show": """
        # One run; the beginning of its id is enough
        normbench show 3f2a
        # The complete record
        normbench show 3f2a --json
        # A run in another folder
        normbench show 3f2a --results other/runs
    """,
    "plot": """
        # The figures of a verdict
        normbench plot group-small-batch
        # The test error over the batch size, a line per norm
        normbench plot --by batch_size
        # The training curves of two norms
        normbench plot --curves --where 'norm!=layer'
        # The pictures that style networks made
        normbench plot --gallery
    """,
    "report": """
        # Write report.html with everything
        normbench report
        # Write it and open it in a browser
        normbench report --open
        # Another file, and the runs of another folder
        normbench report --output my.html --results other/runs
    """,
    "stylize": """
        # Two pictures with the style of a run of task=style
        normbench stylize 3f2a cat.jpg dog.png
        # The second style of a run with several styles
        normbench stylize 3f2a cat.jpg --style 1
        # Write the new pictures to another folder
        normbench stylize 3f2a cat.jpg --output-dir drawings
    """,
    "footprint": """
        # Which inputs does an output of BatchNorm depend on?
        normbench footprint batch
        # Three norms side by side, and a picture of them
        normbench footprint batch layer group --output figures
        # Another number of groups
        normbench footprint group norm.num_groups=2
        # With sequences and a mask
        normbench footprint batch rms --task transformer
    """,
    "bench norms": """
        # All norms on all shapes, which takes minutes
        normbench bench norms
        # Two norms on images
        normbench bench norms group rms --shape image
        # On a GPU
        normbench bench norms batch --device cuda
    """,
    "claim list": """
        # All claims and what the verdicts say
        normbench claim list
        # For other programs
        normbench claim list --json
        # With your own claims
        normbench claim list --config-dir mine
    """,
    "claim show": """
        # What was found, and what a check costs
        normbench claim show group-small-batch
        # Every theorem, design, contrast and interval
        normbench claim show group-small-batch --details
        # For other programs
        normbench claim show rms-layer --json
    """,
    "claim check": """
        # A reduced check with six seeds
        normbench claim check group-small-batch
        # Judge the saved records of a full check again: no runs, in seconds
        normbench claim check group-small-batch --from-records
        # Your own norm as a further arm
        normbench claim check rms-layer --arm norm=dyt
        # All runs as registered, which takes hours
        normbench claim check rms-layer --budget full
    """,
    "recommend": """
        # All tasks at their default batch size
        normbench recommend
        # Images with four samples per step
        normbench recommend --task images --batch-size 4
        # The intervals and notes of the verdicts too
        normbench recommend --task text --details
    """,
    "sync": """
        # Upload all runs that were logged offline
        normbench sync
        # Only print what would be uploaded
        normbench sync --dry-run
        # A slow connection
        normbench sync --timeout 600
    """,
    "dashboard": """
        # Print the sections and panels; nothing is saved
        normbench dashboard
        # Save a workspace and a report to W&B
        normbench dashboard --publish
        # Another project of a team
        normbench dashboard --publish --project digits --entity my-team
    """,
}
"""The name of a command, such as "claim check" -> its examples."""
