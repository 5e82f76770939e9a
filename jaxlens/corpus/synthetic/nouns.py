"""Common English nouns, of things, from frequent to rare."""

_WORDS = """
time people year way day man world life hand part child woman place work week case point
company number group problem fact house water room money story month book eye job word
business side kind head night line city community name team minute idea body face level door
health art war history party result morning reason girl moment air teacher force
car music table window tree street paper ball fire road stone wall river king ship horse
garden school church market office letter picture film song game machine engine computer
phone train plane boat bridge island mountain forest field farm animal dog cat bird fish
cow sheep pig lion tiger bear wolf fox rabbit mouse snake frog spider bee butterfly eagle
owl crow duck goose swan whale dolphin shark salmon trout lobster oyster snail worm ant
apple orange banana lemon grape cherry peach pear plum mango melon berry potato tomato onion
carrot cabbage pepper garlic bean corn wheat rice bread butter cheese milk egg meat soup
sugar salt honey coffee tea wine beer whiskey juice cake pie cookie chocolate
hat shirt coat dress shoe boot glove sock belt scarf ring necklace watch mirror lamp candle
chair bed desk shelf drawer carpet curtain pillow blanket towel bucket broom basket bottle
cup plate bowl spoon fork knife kettle oven stove fridge hammer nail saw drill screw wrench
ladder rope chain anchor sail wheel tire brake pedal saddle bicycle truck bus tractor rocket
satellite telescope microscope camera radio piano guitar violin trumpet flute drum harp
sword shield spear arrow bow cannon rifle pistol armor helmet castle tower temple palace
cathedral tomb statue pyramid lighthouse harbor tunnel canal dam mill barn cottage tent
pencil pen ink eraser ribbon needle thread button zipper fabric cotton wool silk leather
iron steel copper silver gold tin zinc nickel uranium helium neon carbon oxygen nitrogen
hydrogen plasma magnet laser crystal diamond ruby emerald pearl marble granite clay sand
gravel cement brick glass plastic rubber paint glue wax soap perfume
moon sun star planet comet asteroid galaxy cloud rain snow ice storm thunder lightning
tornado hurricane glacier volcano earthquake desert swamp lagoon reef cliff canyon valley
meadow orchard vineyard moss fern ivy rose lily tulip daisy orchid cactus bamboo oak pine
maple willow cedar acorn mushroom heart lung liver kidney stomach bone muscle nerve skull
rib spine elbow ankle wrist thumb beard eyebrow
walrus ferret badger otter hedgehog squid octopus jellyfish urchin beetle mosquito
cricket moth raven falcon heron pelican ostrich peacock turkey pigeon sparrow
lantern chisel anvil bellows plough sickle loom spindle thimble sundial hourglass abacus
quill parchment gargoyle obelisk turret moat trellis gazebo
"""

NOUNS = tuple(_WORDS.split())
"""Each once; which of them are one token is the tokenizer's affair."""
